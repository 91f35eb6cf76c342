"""The processes that train together: how many, which one, and what they tell each other."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = [
    "any_process",
    "average_over_processes",
    "gather_objects",
    "gather_tensors",
    "is_distributed",
    "process_count",
    "process_rank",
    "stack_over_processes",
]


def process_count() -> int:
    """The number of processes that train together, 1 without ``torch.distributed``."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """Which of them this is, 0 without ``torch.distributed``."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_distributed() -> bool:
    """Whether several processes train together."""
    return process_count() > 1


def gather_objects(value: Any) -> list[Any]:
    """The value of every process, in the order of their ranks, on every process."""
    if not is_distributed():
        return [value]
    gathered: list[Any] = [None] * process_count()
    dist.all_gather_object(gathered, value)
    return gathered


def gather_tensors(tensor: Tensor) -> list[Tensor]:
    """The tensor of every process, all of one shape, in the order of their ranks, without gradient."""
    if not is_distributed():
        return [tensor]
    sent = tensor.detach().to(_carrier(tensor.device)).contiguous()
    gathered = [torch.empty_like(sent) for _ in range(process_count())]
    dist.all_gather(gathered, sent)
    return gathered


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether it is true on any process; every one has to ask."""
    if not is_distributed():
        return flag
    vote = torch.tensor([float(flag)], device=_carrier(device))
    dist.all_reduce(vote)
    return bool(vote.item())


def average_over_processes(*tensors: Tensor) -> list[Tensor]:
    """The plain average over the processes of tensors of one length, without gradient, in one message."""
    packed = torch.stack([tensor.detach() for tensor in tensors])
    dist.all_reduce(packed)
    return list((packed / process_count()).unbind())


def stack_over_processes(tensor: Tensor) -> Tensor:
    """The tensors of all processes as one, ``[R, ...]``; the gradient goes back to the process it came from."""
    stacked: Tensor = _Stack.apply(tensor)
    return stacked


class _Stack(torch.autograd.Function):
    # torch.distributed.nn.all_gather does the same with a message per pair of processes in the backward, and warns that
    # it is deprecated.

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(process_count())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total[process_rank()]


def _carrier(device: torch.device) -> torch.device:
    """Where a tensor has to lie to be sent by the process group at hand."""
    return torch.device("cpu") if dist.get_backend() == "gloo" else device
