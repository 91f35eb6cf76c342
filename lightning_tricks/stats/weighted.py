"""What one call of a weighted operation leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_tricks.stats.moments import MomentSums
from lightning_tricks.stats.sampling import Sample
from lightning_tricks.stats.sums import Sums


@dataclass(frozen=True)
class WeightedSums(Sums):
    """Sums over the patterns of one weighted operation.

    Args:
        input: Moments per input feature (per channel for images); None where the input is not a real number.
        output: Moments per unit.
        total: Sum of every output, to see a NaN or an Inf anywhere in the tensor.
        input_total: Sum of every input where the moments are of a sample of given data; None elsewhere.
    """

    input: MomentSums | None
    output: MomentSums
    total: Any
    input_total: Any = None

    @classmethod
    def of(
        cls, x: MomentSums | Sample | None, output: Sample, whole: Tensor, whole_input: Tensor | None = None
    ) -> WeightedSums:
        """Sums of one call from its input (or what is already known of it) and its output."""
        dtype = output.values.dtype
        if isinstance(x, Sample):
            x = MomentSums.of(x.values, x.dim)
        given = None if whole_input is None else whole_input.detach().sum(dtype=dtype)
        return cls(x, MomentSums.of(output.values, output.dim), whole.detach().sum(dtype=dtype), given)
