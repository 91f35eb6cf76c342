"""What the processes of a distributed training tell each other: gradients, timings, trained members, buffers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_tricks.ensemble.data.data_module import members_of_process


def average_gradients(gradients: Iterable[Tensor], weight: int, device: torch.device) -> None:
    """Average gradients over processes, each by how many patterns it saw: the gradient of the joint batch."""
    total = torch.tensor(float(weight), device=device)
    dist.all_reduce(total)
    for gradient in gradients:
        gradient.mul_(weight / total.to(gradient.dtype))
        dist.all_reduce(gradient)


def summed_over_processes(trainer: Any, seconds: tuple[float, float]) -> tuple[float, float]:
    """Timings summed over processes, so that all decide alike."""
    if trainer.world_size == 1:
        return seconds
    total = torch.tensor(seconds, device=trainer.strategy.root_device, dtype=torch.float32)
    dist.all_reduce(total)
    return float(total[0]), float(total[1])


def gather_members(networks: list[Any], world: int) -> None:
    """Give every process the members that the others trained."""
    for rank in range(world):
        for number in members_of_process(len(networks), rank, world):
            for value in networks[number].state_dict().values():
                dist.broadcast(value, src=rank)


def broadcast_buffers(networks: Iterable[Any]) -> None:
    """Give every process the first one's buffers: statistics of batch norm are those of its part of the batches."""
    for network in networks:
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)
