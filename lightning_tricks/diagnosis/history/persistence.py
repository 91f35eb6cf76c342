"""How long something has been so: the course of a problem over the probed steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis.finding import Finding, Severity
from lightning_tricks.diagnosis.history.progress import is_stuck
from lightning_tricks.probes import ActivationRecord, Snapshot, WeightedRecord

RECOVERY = 100  # optimiser steps within which a faint start, as torch's default gives deeper networks, mends itself
HYSTERESIS = 3  # probed steps over which a problem has to hold before it is more than information


@dataclass(frozen=True)
class Course:
    """A problem that holds at the last probed step.

    Args:
        since: The optimiser step of the first snapshot of the unbroken run in which it holds.
        run: The number of snapshots in that run.
        at: The last of them.
    """

    since: int
    run: int
    at: Snapshot

    def severity(self, *, critical: bool) -> Severity:
        """Info until the problem has held long enough."""
        if self.run < HYSTERESIS:
            return "info"
        return "critical" if critical else "warning"


def course(
    history: Sequence[Snapshot], holds: Callable[[Snapshot], bool], *, from_start: bool = False
) -> Course | None:
    """The course of a problem, or None where it does not hold at the last probed step.

    Args:
        history: The snapshots, the oldest first.
        holds: Whether the problem shows in a snapshot.
        from_start: Whether it also counts where it held over the first HYSTERESIS snapshots and the training has come
            to nothing since: what ruined a training need not show in its ruins.
    """
    run = _leading(reversed(history), holds)
    if run:
        return Course(run[-1].step, len(run), run[0])
    first = _leading(history, holds) if from_start else []
    if len(first) >= HYSTERESIS and is_stuck(history):
        return Course(first[0].step, len(first), first[-1])
    return None


def first_of(findings: Iterable[Finding]) -> list[Finding]:
    """Of one problem in several layers, given in the order of execution: the one that is surest, then the oldest."""
    return sorted(findings, key=lambda finding: (finding.rank == 0, finding.step))[:1]


def _leading(snapshots: Iterable[Snapshot], holds: Callable[[Snapshot], bool]) -> list[Snapshot]:
    return list(itertools.takewhile(holds, snapshots))


def layer_course(
    history: Sequence[Snapshot],
    name: str,
    holds: Callable[[ActivationRecord | None], bool],
    *,
    from_start: bool = False,
) -> Course | None:
    """The course of a problem of one activation."""
    return course(history, lambda snapshot: holds(snapshot.activation(name)), from_start=from_start)


def hidden_activations(snapshot: Snapshot) -> list[ActivationRecord]:
    """Activations that further weights follow, without gates: the hidden layers.

    What stands behind the last weighted operation belongs to the output or the loss, and a sigmoid there is meant to
    saturate in the end. A softplus that is called as a function makes a scale, or a loss, positive.
    """
    last = max((record.order for record in snapshot.weighted), default=math.inf)  # none: only activations are looked at
    return [
        record
        for record in snapshot.activations
        if record.order < last and not record.gate and record.patterns and not _makes_positive(record)
    ]


def _makes_positive(record: ActivationRecord) -> bool:
    return properties_of(record.function).makes_positive and record.name.rpartition(".")[2].startswith(record.function)


def weighted_before(snapshot: Snapshot, activation: ActivationRecord) -> WeightedRecord | None:
    """The last weighted operation before an activation: the layer whose pre-activation it takes."""
    before = [record for record in snapshot.weighted if record.order < activation.order]
    return before[-1] if before else None


def weight_scale(snapshot: Snapshot, layer: str | None) -> float | None:
    """RMS(w) sqrt(fan_in) of a weighted layer: the factor by which it scales the standard deviation of its input."""
    for record in snapshot.parameters:
        if layer is not None and record.layer == layer and record.fan_in and record.weight >= 0:
            return record.weight * math.sqrt(record.fan_in)
    return None
