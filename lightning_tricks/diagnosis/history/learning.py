"""Whether the loss is better than that of a guess, and if not, for how long it has had the time to become so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_tricks.diagnosis.history.progress import guess_loss, median
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.loss_and_norm import LossRecord

AT_A_GUESS = 0.98  # of the guess's loss; closer to it a training with a R2 of .01 cannot be told from none
TOLD_AFTER = 100  # optimiser steps before which nothing is said of it


@dataclass(frozen=True)
class Level:
    """Where the loss stands: its mean over the later half of the steps, against that of a guess.

    Args:
        guess: What the best constant output loses, or a uniform guess where only that is known.
        mean: Mean loss over the later half of the steps.
        error: Standard error of that mean.
        fall: By how much the later half falls within itself, in standard errors of the difference of its halves.
        since: The step at which the later half begins.
        steps: The number of optimiser steps from the first look to the last.
    """

    guess: float
    mean: float
    error: float
    fall: float
    since: int
    steps: int

    @property
    def share(self) -> float:
        """Of the guess's loss."""
        return self.mean / self.guess

    @property
    def at_a_guess(self) -> bool:
        """Whether the loss is not yet better than a guess, and there were steps enough to tell."""
        return self.steps >= TOLD_AFTER and self.share >= AT_A_GUESS


def level(history: Sequence[Snapshot]) -> Level | None:
    """The level of the loss; None where no guess or no loss is known."""
    guess = guess_of(history)
    if math.isnan(guess):
        return None
    losses = np.array([pair for pair in _by_step(history) if math.isfinite(pair[1])])
    first, last = history[0].step, history[-1].step
    later = losses[losses[:, 0] >= (first + last) / 2] if len(losses) else losses
    if len(later) < 2:
        return None
    values, half = later[:, 1], len(later) // 2
    fall = float(values[:half].mean() - values[half:].mean())
    spread = math.hypot(_error(values[:half]), _error(values[half:]))
    in_errors = fall / spread if spread > 0 else math.copysign(math.inf, fall) if fall else 0.0
    return Level(guess, float(values.mean()), _error(values), in_errors, int(later[0, 0]), last - first + 1)


def guess_of(history: Sequence[Snapshot]) -> float:
    """What is lost without a look at the input; NaN where it is not known.

    It is not where a step has several calls of a loss, where the targets are all one value, as those of a
    discriminator, and where patterns are told from each other, as by contrastive losses.
    """
    guess = median(map(guess_loss, history))
    records = [record for snapshot in history for record in snapshot.losses[:1]]
    if math.isnan(guess) or not guess > 0 or any(len(snapshot.losses) > 1 for snapshot in history):
        return math.nan
    lowest, highest = (min(r.target_min for r in records), max(r.target_max for r in records))
    if lowest == highest or all(map(_tells_patterns_apart, records)):
        return math.nan
    return min(guess, _of_the_best_constant(records))


def _of_the_best_constant(records: Sequence[LossRecord]) -> float:
    """The entropy of binary targets: what the same output for all patterns loses; infinite where it is not known."""
    record, mean = (
        records[-1],
        float(np.average([r.target_mean for r in records], weights=[r.patterns for r in records])),
    )
    binary = record.function.startswith("binary_cross_entropy") and math.isclose(record.chance, math.log(2.0))
    if not binary or not 0.0 < mean < 1.0:
        return math.inf
    return -mean * math.log(mean) - (1.0 - mean) * math.log(1.0 - mean)


def _tells_patterns_apart(record: LossRecord) -> bool:
    """Whether each pattern is a class of its own: outputs of N by N, as of a contrastive loss."""
    return record.outputs > 1 and record.outputs == record.patterns and record.target_max == record.patterns - 1


def _by_step(history: Sequence[Snapshot]) -> Iterator[tuple[float, float]]:
    """Steps and losses, those between the looks included; these are spread evenly over the steps."""
    before = history[0].step - 1
    for snapshot in history:
        losses = snapshot.recent_losses or (snapshot.loss,)
        steps = np.linspace(before, snapshot.step, len(losses) + 1)[1:]
        yield from zip(steps.tolist(), losses, strict=True)
        before = snapshot.step


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
