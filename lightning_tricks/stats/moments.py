"""Mean and variance per unit that can be merged: Chan, Golub & LeVeque 1979, eq. 2.1.

Everything is centred before it is squared, in the tensor's own precision (float32 for half precision), so a mean of
10,000 standard deviations does no harm.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from lightning_tricks.stats.sums import Sums

Array = Any  # a tensor on the device, or a NumPy array on the host


@dataclass(frozen=True)
class MomentSums(Sums):
    """Count, mean and sum of squared deviations per unit.

    Args:
        count: Number of patterns.
        mean: Mean over patterns, ``[units]``.
        m2: Sum over patterns of (x - mean)^2, ``[units]``.

    >>> import torch
    >>> x = torch.tensor([[1.0], [2.0], [6.0]])
    >>> both = MomentSums.of(x[:2], 0).merge(MomentSums.of(x[2:], 0))
    >>> both.count, both.mean.item(), both.variance.item()
    (3, 3.0, 4.666...)
    """

    count: int
    mean: Array
    m2: Array

    @classmethod
    def of(cls, x: Tensor, dim: int) -> MomentSums:
        """MomentSums of a two-dimensional sample over its patterns, dimension ``dim``."""
        mean = x.mean(dim)
        centred = x - mean.unsqueeze(dim)
        return cls(x.shape[dim], mean, centred.square_().sum(dim))

    def merge(self, other: MomentSums) -> MomentSums:
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        count = self.count + other.count
        share = other.count / count
        shift = other.mean - self.mean
        return MomentSums(count, self.mean + shift * share, self.m2 + other.m2 + shift * shift * (self.count * share))

    @property
    def variance(self) -> Array:
        """Population variance per unit."""
        return self.m2 / max(self.count, 1)

    @property
    def std(self) -> Array:
        return self.variance**0.5

    @property
    def variation(self) -> float:
        """Largest std over the largest root mean square of any unit: 0 where all patterns are equal (host arrays)."""
        variance = self.variance
        if not len(variance):
            return float("nan")
        largest, size = float(variance.max()), float((self.mean * self.mean + variance).max())
        if not size < float("inf"):
            return float("nan")
        return (largest / size) ** 0.5 if size > 0 else 0.0

    @property
    def mean_energy(self) -> float:
        """norm(E x)^2 / E norm(x)^2: 0 for centred inputs, 1 where all patterns look alike (host arrays)."""
        mean = np.asarray(self.mean, np.float64)
        of_mean = float(mean @ mean)
        whole = of_mean + float(np.add.reduce(self.variance, dtype=np.float64))
        return of_mean / whole if whole > 0 else float("nan")


@dataclass(frozen=True)
class JointMoments(Sums):
    """MomentSums of two variables and their co-moment per unit: pre-activation a and activation g(a).

    Args:
        count: Number of patterns.
        mean_a, mean_g: Means over patterns, ``[units]``.
        m2_a, m2_g: Sums of squared deviations, ``[units]``.
        c_ag: Sum of (a - mean_a) (g - mean_g), ``[units]``.
    """

    count: int
    mean_a: Array
    mean_g: Array
    m2_a: Array
    m2_g: Array
    c_ag: Array

    @classmethod
    def of(cls, a: Tensor, g: Tensor, dim: int, known: MomentSums | None = None) -> JointMoments:
        """Joint moments of two samples of one shape over their patterns, dimension ``dim``; ``known``: those of a."""
        mean_a, mean_g = a.mean(dim) if known is None else known.mean, g.mean(dim)
        da, dg = a - mean_a.unsqueeze(dim), g - mean_g.unsqueeze(dim)
        c_ag = (da * dg).sum(dim)
        m2_a = da.square_().sum(dim) if known is None else known.m2
        return cls(a.shape[dim], mean_a, mean_g, m2_a, dg.square_().sum(dim), c_ag)

    def merge(self, other: JointMoments) -> JointMoments:
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        a, g = self.preactivation.merge(other.preactivation), self.activation.merge(other.activation)
        shifts = (other.mean_a - self.mean_a) * (other.mean_g - self.mean_g)
        c_ag = self.c_ag + other.c_ag + shifts * (self.count * (other.count / a.count))
        return JointMoments(a.count, a.mean, g.mean, a.m2, g.m2, c_ag)

    @functools.cached_property
    def preactivation(self) -> MomentSums:
        return MomentSums(self.count, self.mean_a, self.m2_a)

    @functools.cached_property
    def activation(self) -> MomentSums:
        return MomentSums(self.count, self.mean_g, self.m2_g)

    @property
    def linearity(self) -> Array:
        """corr(a, g(a))^2 per unit; NaN where the activation does not vary (host arrays)."""
        a, g = np.asarray(self.m2_a, np.float64), np.asarray(self.m2_g, np.float64)
        c = np.asarray(self.c_ag, np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where((a > 0) & (g > 0), np.minimum(c / a * (c / g), 1.0), np.nan)
