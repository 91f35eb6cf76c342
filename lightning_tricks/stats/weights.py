"""What a weighted operation leaves behind, and what one optimiser step did to the rows of its weight."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_tricks.stats.moments import MomentSums
from lightning_tricks.stats.sampling import Sample
from lightning_tricks.stats.sums import SquareSums, Sums, sizes


@dataclass(frozen=True)
class WeightedSums(Sums):
    """Sums over the patterns of one weighted operation.

    Args:
        input: MomentSums per input feature (per channel for images); None where the input is not a real number.
        output: MomentSums per unit.
        total: Sum of every output, to see a NaN or an Inf anywhere in the tensor.
        input_total: Sum of every input where the moments are of a sample of given data; None elsewhere.
        resolution: Relative rounding error of the output's number format.
        noise: Sum over patterns and units of the variance that a dropout before it gives the output; None without one.
    """

    input: MomentSums | None
    output: MomentSums
    total: Any
    input_total: Any = None
    resolution: float = 0.0
    noise: Any = None

    @classmethod
    def of(
        cls, x: MomentSums | Sample | None, output: Sample, whole: Tensor, whole_input: Tensor | None = None
    ) -> WeightedSums:
        """Sums of one call from its input (or what is already known of it) and its output."""
        dtype = output.values.dtype
        if isinstance(x, Sample):
            x = MomentSums.of(x.values, x.dim)
        given = None if whole_input is None else whole_input.detach().sum(dtype=dtype)
        total, resolution = whole.detach().sum(dtype=dtype), torch.finfo(whole.dtype).eps
        return cls(x, MomentSums.of(output.values, output.dim), total, given, resolution)

    def merge(self, other: WeightedSums) -> WeightedSums:
        return dataclasses.replace(super().merge(other), resolution=max(self.resolution, other.resolution))


@dataclass(frozen=True)
class RowVectors(Sums):
    """What :class:`RowSums` are added up from, on the host: on the device that would be ten operations more.

    Args:
        sizes: sum_j abs(dw_ij) of every row i.
        totals: sum_j dw_ij.
        drift: What one update moves the mean of the unit's pre-activation by; zeros where that is unknown.
        std: The standard deviation of the pre-activation; zeros where that is unknown.
    """

    sizes: Any
    totals: Any
    drift: Any
    std: Any

    @classmethod
    def of(cls, dw: Tensor, drift: Tensor | None, std: Tensor | None) -> RowVectors:
        """Of one update ``dw [rows, fan_in]``; ``drift [rows]`` of the units' means, ``std [rows]`` of a."""
        own = sizes(dw)
        return cls(own, dw.sum(1), None if std is None else drift, None if drift is None else std)

    def merge(self, other: RowVectors) -> RowVectors:
        """The rows of both."""
        both: list[tuple[Any, ...]] = [(self.sizes, other.sizes), (self.totals, other.totals)]
        for one, two in ((self.drift, other.drift), (self.std, other.std)):
            pair = [torch.zeros_like(own) if x is None else x for x, own in zip((one, two), both[0], strict=True)]
            both.append((None, None) if one is None and two is None else tuple(pair))
        return RowVectors(*[None if one is None else torch.cat((one, two)) for one, two in both])

    def with_arrays(self, arrays: Iterator[Any]) -> Any:
        """The sums of these rows, on the host."""
        known = super().with_arrays(arrays)
        rows, moved = len(known.sizes), np.count_nonzero(known.sizes)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            coherence = np.nansum(np.abs(known.totals / known.sizes))  # a row that did not move: 0 / 0
            if known.drift is None:
                return RowSums(rows, np.float64(moved), coherence, 0, None)
            shifts = (known.drift / known.std)[known.std != 0]
            return RowSums(rows, np.float64(moved), coherence, np.float64(len(shifts)), shifts @ shifts)


@dataclass(frozen=True)
class RowSums(Sums):
    """Sums over the rows of a weight: all weights w_ij into one unit i are a row.

    Args:
        rows: Number of rows that were looked at.
        moved: Number of rows that changed at all.
        coherence: Sum over rows of abs(sum_j dw_ij) / sum_j abs(dw_ij).
        drift_rows: Number of rows with a known input mean whose pre-activation varies at all.
        squared_drift: Sum over those rows of ((sum_j dw_ij E x_j + db_i) / std(a_i))^2.
    """

    rows: int
    moved: Any
    coherence: Any
    drift_rows: Any
    squared_drift: Any

    @property
    def update_coherence(self) -> float:
        """Mean over the rows that moved; 1 where all weights into a unit move together."""
        moved = float(self.moved)
        return float(self.coherence) / moved if moved else math.nan

    @property
    def mean_drift(self) -> float:
        """Root mean square over units of the shift of the mean by this one update, in standard deviations of a."""
        rows = float(self.drift_rows)
        return math.sqrt(float(self.squared_drift) / rows) if rows else math.nan


@dataclass(frozen=True)
class ArrivedSums(Sums):
    """A gradient that was changed between the backward pass and the step, as the optimiser got it.

    Args:
        squares: Of its entries.
        peak: Its largest size.
    """

    squares: SquareSums
    peak: Any

    def scaled(self, scale: Tensor | float) -> ArrivedSums:
        """Of the gradient over ``scale``."""
        return ArrivedSums(SquareSums(self.squares.count, self.squares.square / (scale * scale)), self.peak / scale)

    def merge(self, other: ArrivedSums) -> ArrivedSums:
        return ArrivedSums(self.squares.merge(other.squares), max(self.peak, other.peak))


@dataclass(frozen=True)
class ParameterSums(Sums):
    """Sums over the sampled entries of one parameter before and after an optimiser step.

    Args:
        weight: Squares of the entries before the step.
        row_differences: Sum of abs(w_ij - w_0j): zero where all units have the same weights; None without rows.
        gradient: Squares of the whole gradient; None without one.
        update: Squares of the change of the entries; None where no step was seen.
        rows: Sums over the rows of that change, or what they are of; None without rows or step.
        arrived: Of the gradient with which the optimiser stepped, where that was changed before; None else.
    """

    weight: SquareSums
    row_differences: Any
    gradient: SquareSums | None
    update: SquareSums | None
    rows: Any
    arrived: ArrivedSums | None = None
