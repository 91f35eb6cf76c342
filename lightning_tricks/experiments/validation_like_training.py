"""validation_like_training: is validation the same network on the same kind of data?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks._compat.lightning import is_lightning_module
from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding
from lightning_tricks.diagnosis.history.layers import input_layer
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.diagnosis.rules.validation_mismatch import find_validation_mismatch
from lightning_tricks.experiments.asking.asks import Answer, LossFunction, asks, copied
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.asking.sampling import spread_batches
from lightning_tricks.experiments.asking.validation_path import validation_loss
from lightning_tricks.experiments.free_outputs import free_outputs, share
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training import Training
from lightning_tricks.model.batches import number_of_samples, tensors_in
from lightning_tricks.model.isolated import isolated
from lightning_tricks.probes import ChannelMoments, Probe, ValidationRecord
from lightning_tricks.stats import MomentSums

QUESTION = "Do validation data behave as training data?"
_BATCHES = 4  # of either
_CHANNELS = 64  # are compared: of many, some that are spread evenly


@asks(QUESTION)
def validation_like_training(
    model: nn.Module | Training, data: Any, loss_fn: LossFunction | None = None, val_data: Any = None
) -> Answer:
    """The loss on training batches against that on validation batches, both in evaluation mode.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``.
        data: A loader or batches to train on; not yet trained on by this model, or its gap is that of overfitting.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.
        val_data: The same for validation.

    Returns:
        Numbers: ``training`` and ``validation``, mean losses by the same step; ``gap``, the difference in shares of
        the way from a guess to the floor; ``errors``, the difference over its standard error; ``same_batch`` and
        ``by_validation_step``: a training batch in evaluation mode, by ``training_step`` and by ``validation_step``.

        How to read it: a gap over .3 that is many standard errors: other scales, other classes, another order of
        classes. The same batch with another loss: the two steps do not run the same network or the same loss.

    >>> net = nn.Linear(8, 1)
    >>> data, others = ((torch.randn(64, 8), torch.randn(64, 1)) for _ in range(2))
    >>> abs(validation_like_training(net, data, nn.functional.mse_loss, others).numbers["gap"]) < 2
    True
    """
    if val_data is None:
        raise NotAskedError("no validation data were given")
    return _compared(copied(model, loss_fn), data, val_data)


def _compared(training: Training, data: Any, val_data: Any) -> Answer:
    training = training.copy()
    batches = spread_batches(data, _BATCHES)
    size = number_of_samples(batches[0])
    others = spread_batches(val_data, _BATCHES, size)  # losses may depend on how many patterns are together
    own, other = (_losses(training, each) for each in (batches, others))
    way = free_outputs(training, batches[0]).numbers
    trained, validated = float(own.mean()), float(other.mean())
    gap = math.nan
    if way:
        gap = share(trained, way["guess"], way["floor"]) - share(validated, way["guess"], way["floor"])
    error = math.sqrt(sum(float(x.var()) / len(x) for x in (own, other))) if min(len(own), len(other)) > 1 else math.nan
    errors = (validated - trained) / error if error > 0 else math.nan
    alike = all(number_of_samples(batch) == size for batch in (*batches, *others))
    numbers = {"training": trained, "validation": validated, "gap": gap if alike else math.nan, "errors": errors}
    text = f"{trained:.4g} on training batches, {validated:.4g} on validation batches"
    if is_lightning_module(training.module) and training.uses_own_step:
        same = training.evaluate(batches[:1])
        through = validation_loss(training, batches[0])
        if not math.isnan(through):
            numbers |= {"same_batch": same, "by_validation_step": through}
            text += f"; a training batch has {same:.4g} by training_step and {through:.4g} by validation_step"
    return Answer(text, numbers)


def _losses(training: Training, batches: list[Any]) -> Tensor:
    return torch.tensor([training.evaluate([batch]) for batch in batches], dtype=torch.float64)


def input_record(training: Training, data: Any, val_data: Any) -> ValidationRecord | None:
    """What the first layer receives of either; None where it is not known to receive the data as they are."""
    size = number_of_samples(spread_batches(data, 1)[0])
    records = [_first_layer(training, spread_batches(each, _BATCHES, size)) for each in (data, val_data)]
    (layer, train), (other, validation) = records
    if layer is None or layer != other or train is None or validation is None:
        return None
    stride = max(1, -(-len(train.mean) // _CHANNELS)) | 1 if len(train.mean) > _CHANNELS else 1
    return ValidationRecord(
        layer, tuple(range(0, len(train.mean), stride)), _BATCHES, _moments(train, stride), _moments(validation, stride)
    )


def _moments(sums: MomentSums, stride: int) -> ChannelMoments:
    return ChannelMoments(sums.count, *(tuple(map(float, each[::stride])) for each in (sums.mean, sums.std)))


def _first_layer(training: Training, batches: list[Any]) -> tuple[str | None, MomentSums | None]:
    name, total = None, None
    for batch in batches:
        probe = Probe(training.module)
        with isolated(training.module), probe:
            training.loss(batch)
        snapshot = probe.snapshot()
        record = input_layer(snapshot)
        if record is None or record.sums is None or record.sums.input is None:
            return None, None
        if any(norm.order < record.order for norm in snapshot.normalizations):
            return None, None  # whose statistics are the training's
        moments = record.sums.input
        name, total = record.name, moments if total is None else total.merge(moments)
    return name, total


@thresholds
class LIMITS:
    gap: float = 0.3  # of the way from a guess to the floor
    errors: float = 4.0  # standard errors: batches differ
    new: float = 0.5  # of the way: a network that came with more has been trained, and may overfit


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    """After a few steps of a new network nothing can be learned by heart: another gap lies in the data."""
    numbers = found.numbers
    if subject.knows("validation_mismatch"):
        return
    record = input_record(subject.trained, subject.drawn, subject.val_data)
    *before, last = subject.diagnosis.history
    of_input = find_validation_mismatch([*before, dataclasses.replace(last, validation=record)]) if record else []
    if any(each.rank for each in of_input):
        yield from of_input
        return
    why = (
        Criterion("validation is worse, as a share of the way to the floor", numbers["gap"], ">", LIMITS.gap),
        Criterion("the same in standard errors", numbers["errors"], ">", LIMITS.errors),
    )
    new = not subject.way.get("share", math.nan) > LIMITS.new
    mixed = any(each.problem in ("batch_mixing", "batch_norm_mismatch") for each in subject.findings)
    if mixed or not (new and all(each.holds for each in why)):
        return
    if _share_no_class(subject):
        return  # as it should be where features are learned
    step = last.step
    explanation = (
        f"In evaluation mode training batches have a loss of {numbers['training']:.4g} and validation batches one of "
        f"{numbers['validation']:.4g}, after {step + 1} steps, in which nothing can be learned by heart."
    )
    yield Finding("validation_mismatch", None, "warning", step, dict(numbers), explanation, decided_by=why)


def _share_no_class(subject: Subject) -> bool:
    one, other = (_classes(spread_batches(data, _BATCHES)) for data in (subject.drawn, subject.val_data))
    return bool(one) and bool(other) and not one & other


def _classes(batches: list[Any]) -> set[int]:
    """Whole numbers, one a pattern, among the entries of batches."""
    whole = [x for batch in batches for x in tensors_in(batch) if not x.is_floating_point() and x.dim() == 1]
    return {int(each) for x in whole for each in x}


def _proves(found: Experiment, finding: Finding) -> bool:
    return finding.problem == "validation_mismatch" and found.numbers.get("gap", math.nan) > LIMITS.gap


@tried(
    "validation_like_training",
    order=8,
    wanted=lambda subject: subject.val_data is not None,
    brings=_brings,
    proves=_proves,
)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject.trained, subject.drawn, subject.val_data)


_asked = asks(QUESTION, "validation_like_training")(_compared)
