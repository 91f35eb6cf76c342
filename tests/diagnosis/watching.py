"""Trainings on digits with the losses between the looks, as the callback notes them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_tricks.probes import Probe, Snapshot
from lightning_tricks.watch.selection import is_probed

from .trainings import Optimizer, deep, digits

Loss = Callable[[int], Tensor]


def adam(learning_rate: float) -> Optimizer:
    return lambda parameters: torch.optim.Adam(parameters, lr=learning_rate)


def momentum(learning_rate: float) -> Optimizer:
    return lambda parameters: torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9)


def watched(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_at: Loss,
    steps: int,
    every: int = 50,
    rate_at: Callable[[int], float] | None = None,
) -> list[Snapshot]:
    """Looks at the steps of a training, with the losses between them, as the callback notes them."""
    history: list[Snapshot] = []
    losses: list[float] = []
    for step in range(steps):
        if rate_at is not None:
            optimizer.param_groups[0]["lr"] = rate_at(step)
        probe = Probe(network, optimizer, step=step)
        if is_probed(step, every):
            probe.open()
        optimizer.zero_grad()
        loss = loss_at(step)
        loss.backward()
        optimizer.step()
        probe.close()
        if is_probed(step, every):
            history.append(dataclasses.replace(probe.snapshot(), recent_losses=tuple(losses)))
            losses = []
        else:
            losses.append(loss.item())
    return history


def classify(network: nn.Module, *, batch: int = 64, scale: float = 1.0, shift: int = 0) -> Loss:
    x, y = digits()
    generator = torch.Generator().manual_seed(0)

    def loss_at(step: int) -> Tensor:
        chosen = torch.randint(len(x), (batch,), generator=generator)
        return F.cross_entropy(network(scale * x[chosen]), (y[chosen] + shift) % 10)

    return loss_at


def train(network: nn.Module, optimizer: Optimizer, steps: int = 160, **options: float) -> list[Snapshot]:
    every = int(options.pop("every", 50))
    loss_at = classify(network, **options)  # type: ignore[arg-type]
    return watched(network, optimizer(list(network.parameters())), loss_at, steps, every)


def clipped(optimizer: Optimizer, limit: float, *, by_value: bool = False) -> list[Snapshot]:
    """As a Trainer clips: after the gradients were looked at."""
    network, history = deep(nn.ReLU, 2), []
    loss_at = classify(network)
    stepper = optimizer(list(network.parameters()))
    for step in range(130):
        probe = Probe(network, step=step)
        probe.trained_by([stepper])
        stepper.zero_grad()
        if step % 25 == 0:
            probe.open()
        loss_at(step).backward()
        if step % 25 == 0:
            probe.read_gradients(list(network.parameters()))
        clip: Callable[..., object] = nn.utils.clip_grad_value_ if by_value else nn.utils.clip_grad_norm_
        clip(network.parameters(), limit)
        stepper.step()
        if step % 25 == 0:
            probe.read_updates()
        probe.close()
        if step % 25 == 0:
            history.append(probe.snapshot())
    return history


class Convolutions(nn.Module):
    def __init__(self, norm: bool) -> None:
        super().__init__()
        widths, layers = (1, 8, 16), []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after) if norm else nn.Identity()]
            layers += [nn.ReLU()]
        self.features, self.head = nn.Sequential(*layers), nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x.view(-1, 1, 8, 8)).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(8, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.view(-1, 8, 8))[0][:, -1])
