"""What batch-norm layers meet on their way through the data: collected per layer, joined over the processes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_tricks.model.processes import gather_tensors, is_distributed
from lightning_tricks.stats.moments import MomentSums

__all__ = ["BatchStatistics", "Estimator", "join_processes"]

Estimator = Literal["pooled", "paper"]
_SMALL = 2**16  # values up to which float64 is the faster way to be exact
_MOST_WAITING = 64


class BatchStatistics:
    """Mean and variance per channel of all batches that one layer met, by two estimators at once.

    Args:
        channels: The number of channels C.
        device: Where the sums lie; they are float64 where the device has it.

    >>> statistics = BatchStatistics(1, torch.device("cpu"))
    >>> _ = statistics.add(torch.tensor([[0.0], [2.0]]))
    >>> _ = statistics.add(torch.tensor([[4.0], [6.0], [8.0], [10.0]]))
    >>> statistics.estimate("pooled")    # of 0, 2, 4, 6, 8, 10
    (tensor([5.], dtype=torch.float64), tensor([14.], dtype=torch.float64))
    >>> statistics.estimate("paper")     # the average of (1, 2) and (7, 20 / 3)
    (tensor([4.], dtype=torch.float64), tensor([4.3333], dtype=torch.float64))
    """

    def __init__(self, channels: int, device: torch.device) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        zeros = torch.zeros(channels, dtype=dtype, device=device)
        self._moments = MomentSums(0, zeros, zeros)
        self._shift: Tensor | None = None
        self._waiting: list[MomentSums] = []  # batches, joined many at a time
        self.batches = 0
        self.sum_of_means, self.sum_of_variances = zeros, zeros
        self.batch_totals: list[Tensor] = []  # of each batch's means: not finite where a value was not

    def add(self, input: Tensor) -> MomentSums:
        """Adds a batch ``[N, C, *]``, and returns what it adds."""
        channels = self._moments.mean.numel()
        count = input.numel() // channels
        if count == 0:
            return MomentSums(0, self.sum_of_means, self.sum_of_means)
        values = input.detach()
        axes = [0, *range(2, values.dim())]
        small = input.numel() <= _SMALL and self._moments.mean.dtype == torch.float64
        mean, squares = (self._of_small if small else self._of_large)(values, axes, count)
        met = MomentSums(count, mean, squares)
        self._waiting.append(met)
        if len(self._waiting) == _MOST_WAITING:
            self._join()
        return met

    def _of_small(self, values: Tensor, axes: list[int], count: int) -> tuple[Tensor, Tensor]:
        """In float64, which few values have for less than the calls that float32 needs to be as exact."""
        shape = (1, -1) + (1,) * (values.dim() - 2)
        if self._shift is None:
            self._shift = values.mean(axes, dtype=torch.float64)
        from_shift = values.to(torch.float64, copy=True).sub_(self._shift.view(shape))
        rest = from_shift.sum(axes).div_(count)
        squares = from_shift.square_().sum(axes).sub_(rest.square(), alpha=count)
        return self._shift + rest, squares.clamp_(min=0.0)

    def _of_large(self, values: Tensor, axes: list[int], count: int) -> tuple[Tensor, Tensor]:
        """The batch-norm kernel's own statistics would be free, but its float32 sums are off by up to 1e-4.

        Here the rounding of the mean is made good by the mean of what is left after it is taken away.
        """
        if values.dtype in (torch.float16, torch.bfloat16):
            values = values.float()
        mean = values.mean(axes)
        centred = values - mean.view((1, -1) + (1,) * (values.dim() - 2))
        rest = centred.mean(axes).to(self._moments.mean)
        squares = count * (centred.square().mean(axes).to(rest) - rest.square()).clamp(min=0.0)
        return mean.to(rest) + rest, squares

    def _join(self) -> None:
        """Adds the waiting batches: Chan's update of all of them in one."""
        if not self._waiting:
            return
        counts = self.sum_of_means.new_tensor([[batch.count] for batch in self._waiting])
        means = torch.stack([batch.mean for batch in self._waiting])
        squares = torch.stack([batch.m2 for batch in self._waiting])
        count = sum(batch.count for batch in self._waiting)
        mean = (counts * means).sum(0) / count
        within = squares.sum(0) + (counts * (means - mean).square()).sum(0)
        self._moments = self._moments.merge(MomentSums(count, mean, within))
        self.batches += len(self._waiting)
        self.batch_totals.append(means.sum(1))
        self.sum_of_means = self.sum_of_means + means.sum(0)
        self.sum_of_variances = self.sum_of_variances + (squares / (counts - 1).clamp(min=1)).sum(0)
        self._waiting.clear()

    @property
    def moments(self) -> MomentSums:
        """Count, mean and squares of all values."""
        self._join()
        return self._moments

    def estimate(self, estimator: Estimator) -> tuple[Tensor, Tensor]:
        """Mean and unbiased variance."""
        self._join()
        if estimator == "paper":
            return self.sum_of_means / self.batches, self.sum_of_variances / self.batches
        return self.moments.mean, self.moments.m2 / (self.moments.count - 1)

    def is_finite(self) -> bool:
        """Whether mean and variance are numbers, in the float32 of the buffers too; looks at the device once."""
        both = torch.stack([self.moments.mean, self.moments.m2 / max(self.moments.count, 1)])
        return bool(both.float().isfinite().all())

    def first_not_finite(self) -> int | None:
        """The first batch of this process with a NaN or Inf in it, or None."""
        self._join()
        finite = [each for totals in self.batch_totals for each in totals.isfinite().tolist()]
        return finite.index(False) if False in finite else None

    def pack(self) -> Tensor:
        """Everything in one tensor, ``[2 + 4 C]``."""
        self._join()
        head = self.sum_of_means.new_tensor([self.moments.count, self.batches])
        return torch.cat([head, self.moments.mean, self.moments.m2, self.sum_of_means, self.sum_of_variances])

    def unpack(self, packed: Tensor) -> BatchStatistics:
        """The inverse of :meth:`pack`, as another object."""
        other = BatchStatistics(self.moments.mean.numel(), self.moments.mean.device)
        count, batches = (int(value) for value in packed[:2].tolist())
        mean, m2, other.sum_of_means, other.sum_of_variances = packed[2:].chunk(4)
        other._moments, other.batches = MomentSums(count, mean, m2), batches
        return other

    def merge(self, other: BatchStatistics) -> BatchStatistics:
        """The statistics of both taken together."""
        both = BatchStatistics(self.moments.mean.numel(), self.moments.mean.device)
        both._moments = self.moments.merge(other.moments)
        both.batches = self.batches + other.batches
        both.sum_of_means = self.sum_of_means + other.sum_of_means
        both.sum_of_variances = self.sum_of_variances + other.sum_of_variances
        return both


def join_processes(statistics: list[BatchStatistics]) -> list[BatchStatistics]:
    """The statistics of all processes, merged in the order of their ranks, so that every one holds the same bits."""
    if not is_distributed() or not statistics:
        return statistics
    packed = [entry.pack() for entry in statistics]
    home = packed[0].device
    joined: list[BatchStatistics] = []
    for rank in gather_tensors(torch.cat([entry.to(home) for entry in packed])):
        parts = rank.split([entry.numel() for entry in packed])
        entries = [old.unpack(part.to(old.moments.mean)) for old, part in zip(statistics, parts, strict=True)]
        joined = [a.merge(b) for a, b in zip(joined, entries, strict=True)] if joined else entries
    return joined
