"""Ghost batch normalisation: a large batch normalised in small groups, all groups at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks._compat.torch_tensors import transforms_are_active
from lightning_tricks.model.processes import average_over_processes, is_distributed
from lightning_tricks.nn.batch_norm.blocks import Block, NormalizeBlocks, can_write_in_place
from lightning_tricks.nn.batch_norm.running import RunningStatistics, accumulation_dtype, batch_moments, move

__all__ = ["GhostBatchNorm1d", "GhostBatchNorm2d", "GhostBatchNorm3d", "ghost_batch_norm", "ghost_groups"]


# Elements of a batch of channels-last images up to which split and cat are faster than writing each group in its place.
SMALL = 2**19


def ghost_groups(num_samples: int, ghost_size: int, values_per_sample: int = 1) -> list[tuple[int, int, int]]:
    """How a batch falls into groups: blocks ``(start, stop, groups)`` of equally large groups.

    Inside a block, sample n is in group n mod groups; of channels-last images, a group is a run of consecutive samples.

    A batch of N samples has ceil(N / ghost_size) groups, whose sizes differ by one at most, so that no remainder is
    left with poor statistics of its own; a group that would have a single value per channel joins another.

    Args:
        num_samples: The batch size N.
        ghost_size: The largest size of a group.
        values_per_sample: Values per channel in one sample: 1 for tables, H * W for images.

    Raises:
        ValueError: ``ghost_size`` is below 1.

    >>> ghost_groups(64, 32)
    [(0, 64, 2)]
    >>> ghost_groups(65, 32)    # two groups of 22 samples, then one of 21
    [(0, 44, 2), (44, 65, 1)]
    """
    if ghost_size < 1:
        raise ValueError(f"ghost_size must be at least 1 sample, got {ghost_size}")
    groups = max(1, -(-num_samples // ghost_size))
    if values_per_sample == 1:
        groups = max(1, min(groups, num_samples // 2))
    size, larger = divmod(num_samples, groups)
    border = larger * (size + 1)
    blocks = [(0, border, larger), (border, num_samples, groups - larger)]
    return [block for block in blocks if block[2] > 0]


def ghost_batch_norm(
    input: Tensor, ghost_size: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Normalises each group g of a batch by its own mean and variance.

    .. math:: y = \gamma (x - \mu_g) / \sqrt{\sigma_g^2 + \epsilon} + \beta

    Source: Hoffer, Hubara & Soudry 2017, "Train longer, generalize better", Algorithm 1. Taking every G-th sample as a
    group makes the groups a view of the batch with G times the channels: one call of the batch-norm kernel does what a
    loop over the groups does, to the bit (to rounding for table rows on a CPU with more threads than rows in a group).

    Args:
        input: Shape ``[N, C]`` or ``[N, C, *]``, any memory format.
        ghost_size: The largest number of samples in a group; :func:`ghost_groups` says which sample is in which.
        weight: The scale, shape ``[C]``, or None.
        bias: The shift, shape ``[C]``, or None.
        eps: Added to the variance.

    Returns:
        The normalised tensor, and the averages over the groups of their means and unbiased variances, shape ``[C]``.

    Raises:
        ValueError: ``ghost_size`` is below 1, or there are fewer than 2 values per channel.

    >>> x = torch.arange(8.0).reshape(8, 1)
    >>> y, mean, _ = ghost_batch_norm(x, ghost_size=4)    # the groups are 0 2 4 6 and 1 3 5 7
    >>> y[0] == y[1], mean
    (tensor([True]), tensor([3.5000]))
    """
    dtype = accumulation_dtype(input.dtype)
    weight = None if weight is None else weight.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    blocks = ghost_groups(input.shape[0], ghost_size, input[0, 0].numel())
    if _is_channels_last(input):
        # Here every G-th sample is no view; groups of consecutive samples are, one by one.
        blocks = [
            (first, first + (stop - start) // groups, 1)
            for start, stop, groups in blocks
            for first in range(start, stop, (stop - start) // groups)
        ]
    else:
        input = input.contiguous()
    if len(blocks) == 1:  # not through split, whose gradient would be a copy
        output, means, variances = _all_groups(input, blocks[0][2], weight, bias, eps)
        return output, *_average((means, variances), blocks, input.shape)
    if can_write_in_place(input):
        in_calls = _one_by_one if _is_small(input, blocks) else NormalizeBlocks.apply
        output, means, variances = in_calls(input, weight, bias, eps, blocks)
        return output, *_average((means, variances), blocks, input.shape)
    parts = input.split([stop - start for start, stop, _ in blocks])
    outputs, all_means, all_variances = zip(
        *(_all_groups(part, groups, weight, bias, eps) for part, (_, _, groups) in zip(parts, blocks, strict=True)),
        strict=True,
    )
    return torch.cat(outputs), *_average((torch.cat(all_means), torch.cat(all_variances)), blocks, input.shape)


def _is_small(input: Tensor, blocks: Sequence[Block]) -> bool:
    """Whether calls cost more than copies, where every group has a call of its own anyway."""
    return input.numel() <= SMALL and all(groups == 1 for _, _, groups in blocks)


def _one_by_one(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, blocks: Sequence[Block]
) -> tuple[Tensor, Tensor, Tensor]:
    """The groups one after the other, in as few calls as that takes."""
    shape = 2, len(blocks), input.shape[1]
    means, variances = torch.zeros(shape, dtype=accumulation_dtype(input.dtype), device=input.device)
    parts = input.split([stop - start for start, stop, _ in blocks])
    outputs = [
        torch.batch_norm(part, weight, bias, mean, variance, True, 1.0, eps, False)
        for part, mean, variance in zip(parts, means.unbind(), variances.unbind(), strict=True)
    ]
    return torch.cat(outputs), means, variances


def _average(statistics: tuple[Tensor, Tensor], blocks: Sequence[Block], shape: torch.Size) -> tuple[Tensor, Tensor]:
    """The averages over all groups, by their numbers of samples, of statistics that lie one group after the other."""
    samples, channels = shape[:2]
    means, variances = (values.view(-1, channels) for values in statistics)
    shares = [(stop - start) / groups / samples for start, stop, groups in blocks for _ in range(groups)]
    if len(set(shares)) == 1:
        return means.mean(0), variances.mean(0)
    weights = means.new_tensor(shares).unsqueeze(1)
    return (weights * means).sum(0), (weights * variances).sum(0)


def _all_groups(
    block: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The groups side by side as further channels: a view, and one call of the kernel."""
    samples, channels, *rest = block.shape
    side_by_side = block if groups == 1 else block.reshape(samples // groups, groups * channels, *rest)
    weight = None if weight is None else weight.repeat(groups)
    bias = None if bias is None else bias.repeat(groups)
    if transforms_are_active():
        output = F.batch_norm(side_by_side, None, None, weight, bias, training=True, momentum=0.0, eps=eps)
        means, variances = batch_moments(side_by_side.detach())
        count = side_by_side.numel() // side_by_side.shape[1]
        return output.reshape(block.shape), means, variances * (count / (count - 1))
    # With momentum 1 the kernel leaves the statistics of every group in the buffers it is given.
    means = torch.zeros(groups * channels, dtype=accumulation_dtype(block.dtype), device=block.device)
    variances = torch.ones_like(means)
    output = F.batch_norm(
        side_by_side,
        means,
        variances,
        weight,
        bias,
        training=True,
        momentum=1.0,
        eps=eps,
    )
    return output.view(block.shape), means, variances


def _is_channels_last(tensor: Tensor) -> bool:
    """By the strides, which a mapped tensor knows as well; memory formats it does not."""
    if tensor.dim() not in (4, 5) or tensor.is_contiguous():
        return False
    expected = 1
    for axis in (1, *range(tensor.dim() - 1, 1, -1), 0):
        if tensor.shape[axis] > 1 and tensor.stride(axis) != expected:
            return False
        expected *= tensor.shape[axis]
    return True


class _GhostBatchNorm(RunningStatistics):
    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        ghost_size: int = 32,
        accumulation_steps: int = 1,
        synchronize: bool = False,
    ) -> None:
        ghost_groups(1, ghost_size)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.ghost_size = ghost_size
        self.synchronize = synchronize
        self._configure(accumulation_steps, bias)

    def _hint(self) -> str:
        is_a_size = self.eps >= 1 and float(self.eps).is_integer()
        return f"; did you mean ghost_size={int(self.eps)}?" if is_a_size else ""

    def forward(self, input: Tensor) -> Tensor:
        self._check_input(input)
        if not self._uses_batch():
            return self._evaluated(input)
        output, mean, variance = ghost_batch_norm(input, self.ghost_size, self.weight, self.bias, self.eps)
        if self.training and self.track_running_stats:
            with torch.no_grad():
                if self.synchronize and is_distributed():
                    mean, variance = average_over_processes(mean, variance)
                weight_of_batch = self._next_weight()
                assert self.running_mean is not None
                assert self.running_var is not None
                move(self.running_mean, mean, weight_of_batch)
                move(self.running_var, variance, weight_of_batch)
        return output

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, ghost_size={self.ghost_size}"


class GhostBatchNorm1d(_GhostBatchNorm, nn.BatchNorm1d):
    """Batch normalisation of tables and sequences in groups of at most ``ghost_size`` samples.

    The class around :func:`ghost_batch_norm`. In training each group of the batch is normalised by its own statistics,
    and the running statistics make ONE step per batch, towards the average over the groups (a loop over a shared
    ``nn.BatchNorm1d`` makes one step per group and so has another effective momentum). In eval, and in its
    ``state_dict``, the layer is ``nn.BatchNorm1d``.

    ``nn.SyncBatchNorm.convert_sync_batchnorm``, which is Lightning's ``Trainer(sync_batchnorm=True)``, would make it an
    ``nn.SyncBatchNorm`` and nothing else; ``synchronize=True`` is the way.

    Source: Hoffer, Hubara & Soudry 2017, Algorithm 1.

    Args:
        num_features: The number of channels C.
        eps, momentum, affine, track_running_stats, device, dtype, bias: As in ``nn.BatchNorm1d``; ``momentum=None``
            takes the plain average over all batches.
        ghost_size: The largest number of samples that share statistics.
        accumulation_steps: Micro-batches per optimiser step; see :func:`micro_batch_momentum`.
        synchronize: Average the running statistics over the processes. The groups stay on their process.

    Shape:
        ``[N, C]`` or ``[N, C, L]``, and the same out.

    Raises:
        ValueError: ``ghost_size`` or ``accumulation_steps`` is below 1, or ``eps`` not between 0 and 1; in forward: a
            wrong number of channels, or fewer than 2 values per channel in training.

    >>> layer = GhostBatchNorm1d(16, ghost_size=8)
    >>> layer(torch.randn(30, 16)).shape
    torch.Size([30, 16])
    """


class GhostBatchNorm2d(_GhostBatchNorm, nn.BatchNorm2d):
    """Ghost batch normalisation of images ``[N, C, H, W]``; see :class:`GhostBatchNorm1d`.

    >>> layer = GhostBatchNorm2d(16, ghost_size=8)
    >>> layer(torch.randn(30, 16, 4, 4)).shape
    torch.Size([30, 16, 4, 4])
    """


class GhostBatchNorm3d(_GhostBatchNorm, nn.BatchNorm3d):
    """Ghost batch normalisation of volumes ``[N, C, D, H, W]``; see :class:`GhostBatchNorm1d`.

    >>> layer = GhostBatchNorm3d(4, ghost_size=2)
    >>> layer(torch.randn(5, 4, 2, 3, 3)).shape
    torch.Size([5, 4, 2, 3, 3])
    """
