"""Several processes, and the ensemble as one module."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_tricks.ensemble.data.data_module import share
from lightning_tricks.ensemble.evaluation.prediction import Task, as_prediction


def average(gradients: Iterable[Tensor], weight: int, device: torch.device) -> None:
    """Average gradients over processes, each by how many patterns it saw: the gradient of the joint batch."""
    total = torch.tensor(float(weight), device=device)
    dist.all_reduce(total)
    for gradient in gradients:
        gradient.mul_(weight / total.to(gradient.dtype))
        dist.all_reduce(gradient)


def agreed(trainer: Any, seconds: tuple[float, float]) -> tuple[float, float]:
    """Timings summed over processes, so that all decide alike."""
    if trainer.world_size == 1:
        return seconds
    total = torch.tensor(seconds, device=trainer.strategy.root_device, dtype=torch.float32)
    dist.all_reduce(total)
    return float(total[0]), float(total[1])


def all_true(value: bool, device: torch.device) -> bool:
    """Whether it is true in every process."""
    count = torch.tensor(float(value), device=device)
    dist.all_reduce(count)
    return int(count) == dist.get_world_size()


def gather(networks: list[Any], world: int) -> None:
    """Give every process the members that the others trained."""
    for rank in range(world):
        for number in share(len(networks), rank, world):
            for value in networks[number].state_dict().values():
                dist.broadcast(value, src=rank)


def same_buffers(networks: Iterable[Any]) -> None:
    """Give every process the first one's buffers: statistics of batch norm are those of its part of the batches."""
    for network in networks:
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)


class MeanOfMembers(nn.Module):
    """The mean prediction of K modules, as one module without training code.

    >>> MeanOfMembers([nn.Linear(2, 1), nn.Linear(2, 1)], "regression")(torch.zeros(4, 2)).shape
    torch.Size([4, 1])
    """

    def __init__(self, members: list[nn.Module], task: Task) -> None:
        super().__init__()
        self.members = nn.ModuleList(members).eval()
        self.task: Task = task

    def forward(self, x: Tensor) -> Tensor:
        """``[N, ...]``: probabilities or values."""
        return torch.stack([as_prediction(member(x), self.task) for member in self.members]).mean(0)
