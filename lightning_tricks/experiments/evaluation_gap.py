"""evaluation_gap: is a batch's loss the same in training and in evaluation mode?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.experiments.asking.asks import Answer, LossFunction, asks, copied
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.free_outputs import free_outputs, share
from lightning_tricks.experiments.training import Training
from lightning_tricks.model.layers import has_running_statistics

QUESTION = "Is the loss of a batch the same in training and in evaluation mode?"
_DRAWS = 3  # of dropout
_NEARLY = 0.01  # of the way from a guess to the floor


@asks(QUESTION)
def evaluation_gap(model: nn.Module | Training, batch: Any, loss_fn: LossFunction | None = None) -> Answer:
    """The loss of one batch in training mode, the mean of a few draws, and in evaluation mode.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``.
        batch: One batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.

    Returns:
        Numbers: ``training`` and ``evaluation``, the losses; ``gap``, by how much of the way from a guess to the floor
        evaluation is worse (NaN where that way is not known); ``settled``, how much of the running statistics of batch
        norm comes from data and not from their initial values.

        How to read it: above 0, batch norm's running statistics do not describe the data: few updates yet, batches of
        one kind each, a momentum that is too small. Below 0, dropout or noise in training mode.

    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> evaluation_gap(net, (torch.randn(64, 8), torch.arange(64) % 2), nn.functional.cross_entropy).numbers["gap"]
    0.0
    """
    training = copied(model, loss_fn)
    return _gap(training, batch, free_outputs(training, batch).numbers)


def _gap(training: Training, batch: Any, way: Mapping[str, float]) -> Answer:
    training = training.copy()
    settled = _settled(training.module)
    evaluated = training.evaluate([batch])
    with torch.no_grad():
        trained = statistics.mean(float(training.loss(batch)) for _ in range(_DRAWS))
    gap = math.nan
    if way:
        gap = share(trained, way["guess"], way["floor"]) - share(evaluated, way["guess"], way["floor"])
    numbers = {"training": trained, "evaluation": evaluated, "gap": gap, "settled": settled}
    differ = "not " if abs(gap) > _NEARLY or math.isnan(gap) else "nearly "
    text = f"{'' if evaluated == trained else differ}the same"
    return Answer(f"{text}: {trained:.4g} in training mode, {evaluated:.4g} in evaluation mode", numbers)


def _settled(module: nn.Module) -> float:
    """How much of the running statistics comes from the data and not from their initial values, at the least."""
    norms: list[Any] = [each for each in module.modules() if has_running_statistics(each)]
    counts = [(int(each.num_batches_tracked), each.momentum) for each in norms if each.num_batches_tracked is not None]
    shares = [float(n > 0) if momentum is None else 1 - (1 - momentum) ** n for n, momentum in counts]
    return min(shares, default=1.0)


@thresholds
class LIMITS:
    gap: float = 0.3  # of the way from a guess to the floor; trainings that were mended keep within .05
    settled: float = 0.9  # of the running statistics: what a new network's say is no fault


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    """A network that has been trained, whose running statistics do not describe its data."""
    numbers = found.numbers
    why = Criterion("evaluation is worse, as a share of the way to the floor", numbers["gap"], ">", LIMITS.gap)
    if not _shows(found) or subject.knows("batch_norm_mismatch"):
        return
    step = subject.diagnosis.history[-1].step
    explanation = (
        f"The same batch has a loss of {numbers['training']:.4g} in training mode and of {numbers['evaluation']:.4g} "
        "in evaluation mode: the running statistics of batch norm do not describe these data."
    )
    yield Finding("batch_norm_mismatch", None, "warning", step, dict(numbers), explanation, decided_by=(why,))


def _shows(found: Experiment) -> bool:
    numbers = found.numbers
    settled = numbers.get("settled", 1.0) >= LIMITS.settled
    return "settled" in numbers and settled and numbers.get("gap", math.nan) > LIMITS.gap


def _proves(found: Experiment, finding: Finding) -> bool:
    return finding.problem == "batch_norm_mismatch" and found.numbers.get("gap", math.nan) > LIMITS.gap


@tried("evaluation_gap", order=5, brings=_brings, proves=_proves)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject.training, subject.batch, subject.way)


_asked = asks(QUESTION, "evaluation_gap")(_gap)
