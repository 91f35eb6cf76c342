"""The calls of one loss function over a history: what the rules about outputs and targets read."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis.history.persistence import Persistence, persistence
from lightning_tricks.probes import ActivationRecord, Snapshot
from lightning_tricks.probes.records.loss_and_norm import LossRecord

SCALED = 3.0  # std of outputs over that of pre-activations (without how units differ); soft caps have 5 and more
SHIFTED = 0.1  # half of what a factor of 1.4 makes of a mean of .5


@dataclass(frozen=True)
class LossCalls:
    """One call of a loss function, found again by its name, and the snapshots that have it."""

    snapshots: tuple[Snapshot, ...]
    records: tuple[LossRecord, ...]

    @property
    def latest(self) -> LossRecord:
        return self.records[-1]

    @functools.cached_property
    def pooled(self) -> LossRecord:
        """All probed steps together."""
        return functools.reduce(lambda one, other: one.merge(other), self.records)

    @functools.cached_property
    def target_range(self) -> tuple[float, float]:
        """The smallest and the largest target of all; NaN where one was."""
        lowest, highest = ([getattr(record, name) for record in self.records] for name in ("target_min", "target_max"))
        return float(np.min(lowest)), float(np.max(highest))

    @property
    def layer(self) -> str | None:
        """Where the fault is to be looked for: the activation in front of the loss, or the last weighted layer."""
        return self.latest.activation or self.latest.weighted

    @property
    def activation(self) -> ActivationRecord | None:
        return self.snapshots[-1].activation(self.latest.activation or "")

    @property
    def function(self) -> str | None:
        """The activation that the loss's input comes from, by its registry name."""
        return None if self.activation is None else self.activation.function

    @property
    def straight(self) -> bool:
        """Whether the loss takes the output of a bounded activation as it is, not scaled as by a soft cap.

        A logistic unit tells by its mean, which the histogram of its pre-activations gives; tanh has a slope of 1 at
        most, so that outputs that vary much more than the pre-activations were multiplied.
        """
        record, latest = self.activation, self.latest
        if record is None:
            return False
        if not properties_of(record.function).probability:
            return latest.input_std <= SCALED * record.std
        if not record.histogram:
            return False
        centres = (-4.125 + 0.25 * index for index in range(len(record.histogram)))
        mean = sum(share / (1.0 + math.exp(-a)) for share, a in zip(record.histogram, centres, strict=True))
        return abs(mean - latest.input_mean) < SHIFTED

    def persistence(self, holds: Callable[[LossRecord], bool]) -> Persistence | None:
        """The persistence of a problem over the snapshots that have this call."""
        return self.persistence_in(lambda _, record: holds(record))

    def persistence_in(self, holds: Callable[[Snapshot, LossRecord], bool]) -> Persistence | None:
        """The same of what a snapshot and its record of this call show together."""
        by_step = dict(zip(map(id, self.snapshots), self.records, strict=True))
        return persistence(self.snapshots, lambda snapshot: holds(snapshot, by_step[id(snapshot)]))

    def all(self) -> Persistence:
        """The persistence of what all snapshots show together."""
        return Persistence.over(self.snapshots)


def loss_calls(history: Sequence[Snapshot]) -> list[LossCalls]:
    """All calls of loss functions of a history, in the order in which they were first seen."""
    found: dict[tuple[str, str], list[tuple[Snapshot, LossRecord]]] = {}
    for snapshot in history:
        for record in snapshot.losses:
            found.setdefault((record.name, record.function), []).append((snapshot, record))
    return [LossCalls(*map(tuple, zip(*pairs, strict=True))) for pairs in found.values()]
