"""independence: does what the network says of a pattern depend on the others of its batch, or on later positions?"""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.diagnosis.rules.batch_mixing import LIMITS
from lightning_tricks.experiments.asking import Answer, LossFunction, asks, copied, same_draws
from lightning_tricks.experiments.patterns import Collation, NotAskedError
from lightning_tricks.experiments.preflight import preflight
from lightning_tricks.experiments.registry import Subject, tried
from lightning_tricks.experiments.training import Training
from lightning_tricks.probes import Probe
from lightning_tricks.probes.records.preflight import PreflightRecord
from lightning_tricks.probes.watch.outermost import OutermostCall

QUESTION = "Does an output depend on the other patterns of its batch?"


@asks(QUESTION)
def independence(model: nn.Module | Training, batch: Any, loss_fn: LossFunction | None = None) -> Answer:
    """How much a pattern's output changes when all others of the batch are exchanged, in evaluation mode.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``.
        batch: One batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.

    Returns:
        Numbers: ``mixing``, the change of the first and the last pattern over the outputs' standard deviation; of
        sequences whose targets are the next token ``later``, the change of outputs before the tokens that were
        exchanged.

        How to read it: over .05 patterns are mixed, by an axis that is read the wrong way or by intention, as in
        attention over a set; ``later`` over .05 says that a sequence's outputs see what they are to predict.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(8, 3), nn.Softmax(dim=0))
    >>> found = independence(net, (torch.randn(6, 8), torch.rand(6, 3)), nn.functional.mse_loss)
    >>> found.numbers["mixing"] > 0.05, found.answer.partition(":")[0]
    (True, 'yes, first by softmax at 1')
    """
    return of_record(asked_record(copied(model, loss_fn), batch))


def asked_record(training: Training, batch: Any, loader: Any = None) -> PreflightRecord:
    """The outermost call that leads to the loss, asked with other patterns beside.

    Raises:
        NotAskedError: It cannot be asked.
    """
    record = preflight(outermost_call(training, batch), Collation.of(batch, loader))
    if record.alike:
        raise NotAskedError("the patterns of the batch are all alike")
    return record


def first_record(subject: Subject) -> PreflightRecord | None:
    """What the first step's preflight has asked."""
    found = (snapshot.preflight for snapshot in subject.diagnosis.history if snapshot.preflight is not None)
    return next((record for record in found if not record.alike), None)


def outermost_call(training: Training, batch: Any) -> OutermostCall:
    """The first call of the step that leads to the loss, with what it was given.

    Raises:
        NotAskedError: There is none.
    """
    probe = Probe(training.module)
    probe.keep_call()
    with same_draws(), probe:
        loss = training.loss(batch)
        if loss.requires_grad:
            loss.backward()
    call = probe.kept_call
    training.module.zero_grad(set_to_none=True)
    if call is None:
        raise NotAskedError("no call of the model was seen that leads to the loss")
    return call


def of_record(record: PreflightRecord) -> Answer:
    """What a record says of other patterns and later positions."""
    numbers = {"mixing": record.mixing, "patterns": float(record.patterns)}
    parts = [f"{record.mixing:.3g} std by the other patterns"] if not math.isnan(record.mixing) else []
    if not math.isnan(record.later):
        numbers |= {"later": record.later, "next_tokens": record.next_tokens}
        parts.append(f"{record.later:.3g} std by later positions")
    place = record.place if record.mixing > LIMITS.mixes else record.later_place
    found = record.mixing > LIMITS.mixes or record.later > LIMITS.mixes
    where = f", first by {place.function} at {place.layer}" if found and place is not None else ""
    return Answer(f"{'yes' if found else 'no'}{where}: {' and '.join(parts)}", numbers)


def _proves(found: Experiment, finding: Finding) -> bool:
    number = {"batch_mixing": "mixing", "target_leak": "later"}.get(finding.problem, "")
    return found.numbers.get(number, math.nan) > LIMITS.mixes


@tried("independence", order=2, proves=_proves)
def _in_checkup(subject: Subject) -> Experiment:
    """From the first step's preflight, which has asked the same."""
    record = first_record(subject)
    if record is None:
        return _asked(subject.training, subject.batch, subject.data)
    found = of_record(record)
    return Experiment("independence", QUESTION, found.text, found.numbers)


_asked = asks(QUESTION, "independence")(lambda *given: of_record(asked_record(*given)))
