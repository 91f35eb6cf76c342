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
    def of(cls, x: Tensor) -> SquareSums:
        # float32 squares end at 1e-19 and 1e19, where a vanishing or exploding error signal is told from none or NaN
        precise = None if x.device.type == "mps" else torch.float64
        return cls(x.numel(), torch.linalg.vector_norm(x, dtype=precise).square())

    @property
    def rms(self) -> float:
        """Root mean square over all elements; NaN where there is none."""
        return math.sqrt(float(self.square) / self.count) if self.count else math.nan
