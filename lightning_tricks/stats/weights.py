"""What a weighted operation leaves behind, and what one optimiser step did to the rows of its weight."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_tricks.stats.moments import MomentSums
from lightning_tricks.stats.sampling import Sample
from lightning_tricks.stats.sums import SquareSums, Sums


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

    @classmethod
    def of(cls, dw: Tensor, drift: Tensor | None, std: Tensor | None) -> RowSums:
        """Sums of one update ``dw [rows, fan_in]``; ``drift [rows]`` of the units' means, ``std [rows]`` of a."""
        apart = torch.linalg.vector_norm(dw, 1, dim=1)
        coherence = (dw.sum(1) / apart).abs_().nansum()  # a row that did not move: 0 / 0
        moved = torch.count_nonzero(apart)
        if drift is None or std is None:
            return cls(dw.shape[0], moved, coherence, 0, None)
        shifts = (drift / std).masked_fill_(std == 0, 0.0)
        return cls(dw.shape[0], moved, coherence, torch.count_nonzero(std), torch.linalg.vector_norm(shifts).square())

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
        rows: Sums over the rows of that change; None without rows or step.
        arrived: Of the gradient with which the optimiser stepped, where that was changed before; None else.
    """

    weight: SquareSums
    row_differences: Any
    gradient: SquareSums | None
    update: SquareSums | None
    rows: RowSums | None
    arrived: ArrivedSums | None = None
