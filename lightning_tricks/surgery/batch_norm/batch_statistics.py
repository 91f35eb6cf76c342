"""What batch-norm layers meet on their way through the data: collected per layer, joined over the processes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_tricks.model.processes import gather_tensors, is_distributed
from lightning_tricks.stats.moments import MomentSums

__all__ = ["BatchStatistics", "Estimator", "join_processes"]

Estimator = Literal["pooled", "paper"]


class BatchStatistics:
    """Mean and variance per channel of all batches that one layer met, by two estimators at once.

    Args:
        channels: The number of channels C.
        device: Where the sums lie; they are float64 where the device has it.

    >>> statistics = BatchStatistics(1, torch.device("cpu"))
    >>> statistics.add(torch.tensor([[0.0], [2.0]]))
    >>> statistics.add(torch.tensor([[4.0], [6.0], [8.0], [10.0]]))
    >>> statistics.estimate("pooled")    # of 0, 2, 4, 6, 8, 10
    (tensor([5.], dtype=torch.float64), tensor([14.], dtype=torch.float64))
    >>> statistics.estimate("paper")     # the average of (1, 2) and (7, 20 / 3)
    (tensor([4.], dtype=torch.float64), tensor([4.3333], dtype=torch.float64))
    """

    def __init__(self, channels: int, device: torch.device) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        zeros = torch.zeros(channels, dtype=dtype, device=device)
        self.moments = MomentSums(0, zeros, zeros)
        self.batches = 0
        self.sum_of_means, self.sum_of_variances = zeros, zeros
        self.batch_totals: list[Tensor] = []  # of each batch's means: not finite where a value was not

    def add(self, input: Tensor) -> None:
        """Adds a batch ``[N, C, *]``."""
        channels = self.moments.mean.numel()
        count = input.numel() // channels
        if count == 0:
            return
        values = input.detach()
        if values.dtype in (torch.float16, torch.bfloat16):
            values = values.float()
        axes = [axis for axis in range(values.dim()) if axis != 1]
        # The batch-norm kernel's own statistics would be free, but over many values its float32 sums are off by up to
        # 1e-4. Here the rounding of the mean is made good by the mean of what is left after it is taken away.
        mean = values.mean(axes)
        centred = values - mean.view((1, -1) + (1,) * (values.dim() - 2))
        rest = centred.mean(axes).to(self.sum_of_means)
        squares = count * (centred.square().mean(axes).to(rest) - rest.square()).clamp(min=0.0)
        mean, variance = mean.to(rest) + rest, squares / max(count - 1, 1)
        self.moments = self.moments.merge(MomentSums(count, mean, squares))
        self.batches += 1
        self.batch_totals.append(mean.sum())
        self.sum_of_means = self.sum_of_means + mean
        self.sum_of_variances = self.sum_of_variances + variance

    def estimate(self, estimator: Estimator) -> tuple[Tensor, Tensor]:
        """Mean and unbiased variance."""
        if estimator == "paper":
            return self.sum_of_means / self.batches, self.sum_of_variances / self.batches
        return self.moments.mean, self.moments.m2 / (self.moments.count - 1)

    def is_finite(self) -> bool:
        """Whether mean and variance are numbers; looks at the device once."""
        return bool((self.moments.mean.sum() + self.moments.m2.sum()).isfinite())

    def first_not_finite(self) -> int | None:
        """The first batch of this process with a NaN or Inf in it, or None."""
        wrong = [number for number, total in enumerate(self.batch_totals) if not bool(total.isfinite())]
        return wrong[0] if wrong else None

    def pack(self) -> Tensor:
        """Everything in one tensor, ``[2 + 4 C]``."""
        head = self.sum_of_means.new_tensor([self.moments.count, self.batches])
        return torch.cat([head, self.moments.mean, self.moments.m2, self.sum_of_means, self.sum_of_variances])

    def unpack(self, packed: Tensor) -> BatchStatistics:
        """The inverse of :meth:`pack`, as another object."""
        other = BatchStatistics(self.moments.mean.numel(), self.moments.mean.device)
        count, batches = (int(value) for value in packed[:2].tolist())
        mean, m2, other.sum_of_means, other.sum_of_variances = packed[2:].chunk(4)
        other.moments, other.batches = MomentSums(count, mean, m2), batches
        return other

    def merge(self, other: BatchStatistics) -> BatchStatistics:
        """The statistics of both taken together."""
        both = BatchStatistics(self.moments.mean.numel(), self.moments.mean.device)
        both.moments = self.moments.merge(other.moments)
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
