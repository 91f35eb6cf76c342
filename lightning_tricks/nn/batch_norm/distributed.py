"""Statistics of a batch that is spread over processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["average_over_processes", "is_distributed", "joint_moments"]


def is_distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _Gather(torch.autograd.Function):
    """Stacks a tensor over the processes; the gradient goes back to the process it came from."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total[dist.get_rank()]


def joint_moments(mean: Tensor, squares: Tensor | None, count: int) -> tuple[Tensor, Tensor | None, Tensor]:
    r"""Mean and variance over all processes, differentiable, from those of each one (Chan et al. 1979).

    .. math:: \mu = \sum_r n_r \mu_r / N, \qquad
        N \sigma^2 = \sum_r \left( S_r + n_r (\mu_r - \mu)^2 \right)

    Args:
        mean: This process's mean :math:`\mu_r`, shape ``[C]``.
        squares: This process's sum of squared deviations :math:`S_r` from its own mean, shape ``[C]``, or None.
        count: This process's number of values per channel :math:`n_r`.

    Returns:
        Mean, biased variance (None without ``squares``) and the count N as a tensor.
    """
    parts = [mean] if squares is None else [mean, squares]
    gathered = _Gather.apply(torch.cat([*parts, mean.new_tensor([float(count)])]))
    channels = mean.numel()
    counts = gathered[:, -1:].detach()
    total = counts.sum()
    means = gathered[:, :channels]
    joint = (counts * means).sum(0) / total
    if squares is None:
        return joint, None, total
    deviations = gathered[:, channels:-1] + counts * (means - joint).square()
    return joint, deviations.sum(0) / total, total


def average_over_processes(*tensors: Tensor) -> list[Tensor]:
    """The plain average over the processes of tensors of one length, without gradient, in one message."""
    packed = torch.stack([tensor.detach() for tensor in tensors])
    dist.all_reduce(packed)
    return list((packed / dist.get_world_size()).unbind())
