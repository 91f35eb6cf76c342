"""The numbers of one call of a loss function, and of one of a batch normalisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_tricks.stats import MomentSums, Sums

MOST_COUNTED = 100  # classes of which a record tells how often each was wanted


def extremes(values: Tensor) -> Tensor:
    """The smallest and the largest of some numbers; NaN where one of them is."""
    return torch.stack(torch.aminmax(values))


@dataclass(frozen=True)
class ValueSummary(Sums):
    """Mean, variance, smallest and largest of some numbers: tensors, or arrays on the host."""

    mean: Any
    variance: Any
    extremes: Any

    @classmethod
    def of(cls, values: Tensor) -> ValueSummary:
        variance, mean = torch.var_mean(values, correction=0)
        return cls(mean, variance, extremes(values))

    def measures(self, name: str) -> dict[str, float]:
        """The four measures of a record by their names."""
        low, high = self.extremes.tolist()
        std = math.sqrt(max(float(self.variance), 0.0)) if math.isfinite(self.variance) else math.nan
        return {f"{name}_mean": float(self.mean), f"{name}_std": std, f"{name}_min": low, f"{name}_max": high}


@dataclass(frozen=True)
class LossSums(Sums):
    """One call, its numbers still on the device.

    Args:
        patterns: Number of patterns looked at.
        count: Number of inputs looked at.
        value: The mean loss.
        chance: The loss of a uniform guess.
        input: Of all inputs looked at.
        nonzero: Number of inputs that are not zero.
        sums, log_sums: Smallest and largest sum, and log sum exp, over the outputs of a pattern.
        spread: Over outputs, the largest variance over patterns and the largest mean square.
        target: Of all targets looked at; None for numbers of classes.
        classes: The numbers of the classes themselves: a few thousand of them, which the host sees through faster.
        ignored: The number that is none of a class.
        several: Number of target rows of nothing but 0 and several 1; None where targets are no rows of classes.
        answers: Which classes were wanted and which the outputs answer; None where that is unknown.
        target_means: Mean target of each output; None for one output, and for very many.
        weights: The weight of each class, or of a no and a yes; None without.
        smoothing: By how much the call smooths its targets.
        along_rows, along_columns: Tokens and what is wanted for them, for either dimension that may be time.
    """

    patterns: int
    count: int
    value: Any
    chance: Any
    input: ValueSummary
    nonzero: Any
    sums: Any = None
    log_sums: Any = None
    spread: Any = None
    target: ValueSummary | None = None
    classes: Any = None
    ignored: int | None = None
    several: Any = None
    answers: Sums | None = None
    target_means: Any = None
    weights: Any = None
    smoothing: float = 0.0
    along_rows: Sums | None = None
    along_columns: Sums | None = None

    @property
    def variation(self) -> float:
        """Largest std over patterns of an output over the largest root mean square: 0 where all patterns are equal."""
        variance, size = (float(each) for each in self.spread)
        return math.sqrt(variance / size) if size > 0 else size

    @property
    def shift(self) -> float:
        """By how many positions the targets are the input's tokens shifted: 1 where either dimension may be time."""
        along: list[Any] = [each for each in (self.along_rows, self.along_columns) if each is not None]
        shifts = [each.shift() for each in along]
        return 1.0 if 1.0 in shifts else next((shift for shift in shifts if not math.isnan(shift)), math.nan)

    def target_measures(self, outputs: int) -> dict[str, Any]:
        """What is known of the targets, by the names of a record's fields."""
        if self.target is not None:
            share = math.nan if self.several is None else float(self.several) / max(self.patterns, 1)
            means = () if self.target_means is None else tuple(map(float, self.target_means))
            return {**self.target.measures("target"), "several_share": share, "target_means": means}
        known = self.classes if self.ignored is None else self.classes[self.classes != self.ignored]
        count = len(known)
        if not count:
            return {}
        mean = float(known.sum(dtype=np.float64)) / count
        centred = known - mean
        whole = ValueSummary(mean, float(centred @ centred) / count, np.array((known.min(), known.max())))
        return {**whole.measures("target"), **_counts(known, outputs)}


def _counts(classes: Any, outputs: int) -> dict[str, Any]:
    if classes.min() < 0:
        return {}
    counts = np.bincount(classes.astype(np.int64))
    few = outputs <= MOST_COUNTED
    told = tuple(np.pad(counts, (0, max(0, outputs - len(counts)))).tolist()) if few else ()
    return {"distinct_classes": int(np.count_nonzero(counts)), "class_counts": told}


@dataclass(frozen=True)
class NormalizationSums(Sums):
    """One call: the moments of its input and the running statistics as they were before it, per channel."""

    batch: MomentSums
    running_mean: Any
    running_variance: Any
