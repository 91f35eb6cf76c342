"""The way that a loss has to go: from that of a guess to the floor, the least that any outputs have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.diagnosis.history.constant_answer import entropy
from lightning_tricks.diagnosis.history.learning import guess_of
from lightning_tricks.probes import LossRecord, Snapshot
from lightning_tricks.report.words import number

_OF_DISTANCES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


class Way(NamedTuple):
    """The two ends, NaN where they are not known, and the least loss that a finding says outputs can reach."""

    guess: float = math.nan
    floor: float = math.nan
    reachable: float = math.nan

    @classmethod
    def of(cls, diagnosis: Diagnosis) -> Way:
        """The guess by the targets of all looks; the floor by an experiment, else by what is known of such a loss."""
        if not diagnosis.history:
            return cls()
        guess = guess_of(diagnosis.history)
        floor = math.nan if math.isnan(guess) else _floor_of(diagnosis.history)
        for made in diagnosis.experiments:
            if made.name == "free_outputs" and made.conclusive:
                found, least = (made.numbers.get(name, math.nan) for name in ("guess", "floor"))
                guess, floor = found if math.isnan(guess) else guess, least
        if math.isinf(floor):
            return cls()  # a loss without a lower bound has no way to go
        reached = (finding.evidence["reachable"] for finding in diagnosis.findings if "reachable" in finding.evidence)
        return cls(guess, floor, next(reached, math.nan))

    @property
    def end(self) -> float:
        """The floor; 0 where it is not known."""
        return 0.0 if math.isnan(self.floor) else self.floor

    @property
    def known(self) -> bool:
        """Whether there is a way to be told of."""
        return self.guess > self.end

    def share(self, loss: float) -> float:
        """How much of it a loss has gone: 0 is that of a guess, 1 the end; NaN where there is no way.

        >>> Way(2.0, 1.0).share(1.25), Way(2.0).share(1.5)
        (0.75, 0.25)
        """
        return (self.guess - loss) / (self.guess - self.end) if self.known else math.nan

    def loss(self, share: float) -> float:
        """The loss at a share of it."""
        return self.guess - share * (self.guess - self.end)

    def __str__(self) -> str:
        return "the way to 0" if math.isnan(self.floor) else f"the way to the floor, {number(self.floor)}"


def _floor_of(history: Sequence[Snapshot]) -> float:
    """That of the loss itself: distances can be 0, and a class be told for sure but for what smoothing takes."""
    record: LossRecord = [record for snapshot in history for record in snapshot.losses][-1]
    if record.function in _OF_DISTANCES:
        return 0.0
    if record.function != "cross_entropy" or not record.distinct_classes or math.isnan(record.smoothing):
        return math.nan
    if record.smoothing and record.class_weights:
        return math.nan
    aims = np.full(record.outputs, record.smoothing / record.outputs)
    aims[0] += 1 - record.smoothing
    return float(entropy(aims))
