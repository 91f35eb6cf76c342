"""own_input: does a pattern's output change when its own input is replaced?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import nn

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.experiments.asking.asks import Answer, LossFunction, asks, copied
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.independence import asked_record, first_record
from lightning_tricks.experiments.preflight.dependence import CONSTANT
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training import Training
from lightning_tricks.probes.records.preflight import PreflightRecord

QUESTION = "Does a pattern's output change when its own input is replaced?"


@asks(QUESTION)
def own_input(model: nn.Module | Training, batch: Any, loss_fn: LossFunction | None = None) -> Answer:
    """How much an output changes when its pattern's input is replaced by that of another, in evaluation mode.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``.
        batch: One batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.

    Returns:
        Numbers: ``own``, the largest change over the outputs' standard deviation.

        How to read it: under 1e-6 the network is a constant: dead units, a softmax over one entry, saturated outputs.
        A network whose last layer begins at zero is one until its first step.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(8, 1), nn.Softmax(dim=1))
    >>> print(own_input(net, (torch.randn(16, 8), torch.rand(16, 1)), nn.functional.mse_loss))
    own_input: Does a pattern's output change when its own input is replaced? no: it is the same for every input
    """
    return of_record(asked_record(copied(model, loss_fn), batch))


def of_record(record: PreflightRecord) -> Answer:
    """What a record says of its own input."""
    numbers = {"own": record.own, "patterns": float(record.patterns)}
    if record.own <= CONSTANT:
        return Answer("no: it is the same for every input", numbers)
    return Answer(f"yes, by {record.own:.3g} std", numbers)


@thresholds
class LIMITS:
    least_own: float = CONSTANT  # float32 rounds by 6e-8


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    """After steps that have moved it, the network is a constant; where patterns are mixed at a place, by that."""
    why = Criterion("change by its own input, over std", found.numbers["own"], "<=", LIMITS.least_own)
    if found.numbers.get("steps") == 0:
        return
    last = subject.diagnosis.history[-1]
    moved = [record for record in last.parameters if record.update > 0]
    if not why.holds or not moved or subject.knows("collapsed_output", "symmetric_weights", "non_finite", "no_update"):
        return
    mixed = next((each for each in subject.findings if each.problem == "batch_mixing"), None)
    if mixed is not None and mixed.layer is not None:
        yield dataclasses.replace(mixed, severity="warning", decided_by=(*mixed.decided_by, why))
        return
    explanation = (
        "In evaluation mode every pattern was given another's input, and its output stayed what it was: the network is "
        f"a constant after {len(subject.diagnosis.history)} steps."
    )
    evidence = {why.name: why.value, "patterns": found.numbers["patterns"]}
    yield Finding("collapsed_output", None, "warning", last.step, evidence, explanation, decided_by=(why,))


def _proves(found: Experiment, finding: Finding) -> bool:
    return finding.problem in ("collapsed_output", "batch_mixing") and found.numbers["own"] <= LIMITS.least_own


@tried("own_input", order=3, brings=_brings, proves=_proves)
def _in_checkup(subject: Subject) -> Experiment:
    """After the steps: a last layer that begins at zero is a constant before the first."""
    try:
        return _asked(subject.trained, subject.batch, subject.data)
    except NotAskedError:
        record = first_record(subject)
        if record is None:
            raise
    found = of_record(record)
    return Experiment("own_input", QUESTION, f"{found.text} before the first step", {**found.numbers, "steps": 0.0})


_asked = asks(QUESTION, "own_input")(lambda *given: of_record(asked_record(*given)))
