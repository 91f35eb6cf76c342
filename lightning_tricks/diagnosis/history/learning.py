"""Whether the loss is better than that of a guess, and if not, for how long it has had the time to become so."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_tricks.diagnosis.history.constant_answer import best_constant, entropy
from lightning_tricks.diagnosis.history.progress import first_validation, guess_loss, guess_or_start, median
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.loss_and_norm import LossRecord

AT_A_GUESS = 0.98  # of the guess's loss; closer to it a training with a R2 of .01 cannot be told from none
LEARNED = 0.5  # of it; under that AdamW with a decay of .1 to 1 is fine, and right networks that mix patterns learn
FALLING = 2.0  # standard errors by which the later half falls within itself: it is on its way
TOLD_AFTER = 100  # optimiser steps before which nothing is said of it
STEPS = 1000  # what a slow optimiser needs to leave a guess ...
EPOCHS = 3.0  # ... or passes over the data, where batches are large: it has had its time then
LITTLE = 0.01  # of a guess's loss: a R2 of .01 is all in some data, and click-through comes under 1 by right
SURE = 2.0  # standard errors of a level


@dataclass(frozen=True)
class Level:
    """Where the loss stands: its mean over the later half of the steps, against that of a guess."""

    guess: float  # what the best constant output loses, or a uniform guess where only that is known
    mean: float  # loss over the later half of the steps
    error: float  # standard error of that mean
    fall: float  # of the later half within itself, in standard errors of the difference of its halves
    since: int  # the step at which the later half begins
    steps: int  # optimiser steps from the first look to the last
    guess_error: float = 0.0  # standard error of the guess, where it is that of the targets that were seen

    @property
    def share(self) -> float:
        """Of the guess's loss."""
        return self.mean / self.guess

    @property
    def told(self) -> bool:
        """Whether there were steps enough to tell."""
        return self.steps >= TOLD_AFTER

    @property
    def may_be_at_a_guess(self) -> bool:
        """Whether it cannot be told from that of a guess: of batches with few patterns, both are uncertain."""
        return self.told and self.share + SURE * math.hypot(self.error, self.guess_error) / self.guess >= AT_A_GUESS

    @property
    def at_a_guess(self) -> bool:
        """Whether the loss is not yet better than a guess, and there were steps enough to tell."""
        return self.told and self.share >= AT_A_GUESS


def level(history: Sequence[Snapshot], guess: float | None = None) -> Level | None:
    """The level of the loss, against its own guess unless one is given; None where no guess or no loss is known."""
    guess = guess_of(history) if guess is None else guess
    if math.isnan(guess):
        return None
    steps, values = _later(history)
    half = len(values) // 2
    if not half:
        return None
    fall = float(values[:half].mean() - values[half:].mean())
    spread = math.hypot(_error(values[:half]), _error(values[half:]))
    in_errors = fall / spread if spread > 0 else math.copysign(math.inf, fall) if fall else 0.0
    passed = history[-1].step - history[0].step + 1
    return Level(guess, float(values.mean()), _error(values), in_errors, int(steps[0]), passed, _guess_error(history))


def had_its_time(history: Sequence[Snapshot]) -> bool:
    """Whether the training is long enough to tell what it comes to; epochs that are not counted are NaN."""
    steps, epochs = history[-1].step - history[0].step + 1, history[-1].epoch - history[0].epoch
    return steps >= STEPS or epochs >= EPOCHS


def later_losses(history: Sequence[Snapshot]) -> np.ndarray:
    """The losses of the later half of the steps, those between the looks included."""
    return _later(history)[1]


def stands_still(history: Sequence[Snapshot]) -> bool:
    """Whether the later half of the losses lies at that of a guess, or of the start, and does not fall any more."""
    now = level(history, guess_or_start(history))
    return now is not None and now.at_a_guess and now.fall <= FALLING


def little_learned(history: Sequence[Snapshot]) -> bool:
    """Whether the later half of the losses lies over half of that of a guess, or of the start."""
    now = level(history, guess_or_start(history))
    return now is not None and now.told and now.share > LEARNED


def at_full_rate(history: Sequence[Snapshot], steps: int = 100, share: float = 0.5) -> bool:
    """Whether the learning rate has been this share of its highest for so many steps, and does not rise any more."""
    rates = [(s.step, s.learning_rate) for s in history if not math.isnan(s.learning_rate)]
    if not rates:
        return True
    highest, since = max(rate for _, rate in rates), history[-1].step - steps
    late = [rate for step, rate in rates if step > since] or [rates[-1][1]]
    before = [rate for step, rate in rates if step <= since]
    full = all(rate >= share * highest for rate in (*before[-1:], *late))
    return full and not late[-1] > late[0]


def guess_of(history: Sequence[Snapshot]) -> float:
    """What is lost without a look at the input; NaN where it is not known.

    It is not where a step has several calls of a loss, where the targets are all one value, as those of a
    discriminator, and where patterns are told from each other, as by contrastive losses.
    """
    records = [record for snapshot in history for record in snapshot.losses[:1]]
    guess = median(map(guess_loss, history))
    if not math.isnan(guess) and math.isnan(records[-1].chance):
        guess = max(guess, _pooled_variance(records))
    if math.isnan(guess) or not guess > 0 or any(len(snapshot.losses) > 1 for snapshot in history):
        return math.nan
    lowest, highest = (min(r.target_min for r in records), max(r.target_max for r in records))
    if lowest == highest or all(map(_tells_patterns_apart, records)):
        return math.nan
    constant = best_constant(records)
    return min(guess, _of_the_best_constant(records) if constant is None else constant.loss)


def guess_on_validation(history: Sequence[Snapshot], guess: float) -> float:
    """What the training's guess loses on validation: more, where other classes are frequent there."""
    record = first_validation(history)
    if record is None or not record.class_counts:
        return guess
    records = [record for snapshot in history for record in snapshot.losses[:1]]
    constant = best_constant(records) if records else None
    if constant is None or len(constant.counts) != len(record.class_counts):
        return guess
    return max(guess, constant.loss_among(record.class_counts))


def _pooled_variance(records: Sequence[LossRecord]) -> float:
    """That of the targets of all looks together: small batches differ in their means as well."""
    weights = _patterns(records)
    means = np.array([record.target_mean for record in records])
    squares = np.array([record.target_std for record in records]) ** 2 + means**2
    mean = np.average(means, weights=weights)
    return float(np.average(squares, weights=weights) - mean * mean)


def _patterns(records: Sequence[LossRecord]) -> np.ndarray:
    """Of each record; of a table, which does not tell them, one."""
    return np.array([record.patterns or 1 for record in records], np.float64)


def _of_the_best_constant(records: Sequence[LossRecord]) -> float:
    """The entropy of binary targets: what the same output for all patterns loses; infinite where it is not known."""
    record, mean = records[-1], np.average([r.target_mean for r in records], weights=_patterns(records))
    binary = record.function.startswith("binary_cross_entropy") and math.isclose(record.chance, math.log(2.0))
    return entropy(np.array([mean, 1.0 - mean])) if binary and 0.0 < mean < 1.0 else math.inf


def _tells_patterns_apart(record: LossRecord) -> bool:
    """Whether each pattern is a class of its own: outputs of N by N, as of a contrastive loss."""
    return record.outputs > 1 and record.outputs == record.patterns and record.target_max == record.patterns - 1


def losses_by_step(history: Sequence[Snapshot]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and losses, those between the looks included; these are spread evenly over the steps."""
    losses = [snapshot.recent_losses or (snapshot.loss,) for snapshot in history]
    counts = np.array([len(each) for each in losses])
    ends = np.array([snapshot.step for snapshot in history], np.float64)
    before = np.append(history[0].step - 1, ends[:-1])
    place = np.arange(1, counts.sum() + 1) - np.repeat(np.cumsum(counts) - counts, counts)  # 1, 2, ... in each look
    steps = np.repeat(before, counts) + place * np.repeat((ends - before) / counts, counts)
    return steps, np.fromiter(itertools.chain.from_iterable(losses), np.float64)


def _later(history: Sequence[Snapshot]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and losses of the later half."""
    steps, values = losses_by_step(history)
    later = np.isfinite(values) & (steps >= (history[0].step + history[-1].step) / 2)
    return steps[later], values[later]


def _guess_error(history: Sequence[Snapshot]) -> float:
    guesses = np.array([guess for guess in map(guess_loss, history) if not math.isnan(guess)])
    error = _error(guesses)
    return error if math.isfinite(error) else 0.0


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
