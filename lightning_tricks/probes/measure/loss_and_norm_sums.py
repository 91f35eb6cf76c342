"""The numbers of one call of a loss function, and of one of a batch normalisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_tricks.stats import MomentSums, Sums


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
        target: Of all targets looked at; None for numbers of classes.
        classes: The numbers of the classes themselves: a few thousand of them, which the host sees through faster.
        ignored: The number that is none of a class.
    """

    patterns: int
    count: int
    value: Any
    chance: Any
    input: ValueSummary
    nonzero: Any
    sums: Any = None
    log_sums: Any = None
    target: ValueSummary | None = None
    classes: Any = None
    ignored: int | None = None

    def target_measures(self) -> dict[str, float]:
        if self.target is not None:
            return self.target.measures("target")
        known = self.classes if self.ignored is None else self.classes[self.classes != self.ignored]
        count = len(known)
        if not count:
            return {}
        mean = float(known.sum(dtype=np.float64)) / count
        centred = known - mean
        return ValueSummary(mean, float(centred @ centred) / count, np.array((known.min(), known.max()))).measures(
            "target"
        )


@dataclass(frozen=True)
class NormalizationSums(Sums):
    """One call: the moments of its input and the running statistics as they were before it, per channel."""

    batch: MomentSums
    running_mean: Any
    running_variance: Any
