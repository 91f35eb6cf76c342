"""Root mean squares: of an error signal, a gradient, a weight, an update."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_tricks.stats.sums import Sums


@dataclass(frozen=True)
class SquareSums(Sums):
    """Sum of squares and the number of elements it runs over.

    >>> SquareSums.of(torch.tensor([3.0, 4.0])).merge(SquareSums.of(torch.zeros(2))).rms
    2.5
    """

    count: int
    square: Any

    @classmethod
    def of(cls, x: Tensor, *, precise: bool = False) -> SquareSums:
        """Sums of one tensor; ``precise``: also where its squares leave float32, under 1e-19 and over 1e19."""
        dtype = torch.float64 if precise and x.device.type != "mps" else None
        return cls(x.numel(), torch.linalg.vector_norm(x, dtype=dtype).square())

    @property
    def rms(self) -> float:
        """Root mean square over all elements; NaN where there is none."""
        return math.sqrt(float(self.square) / self.count) if self.count else math.nan
