"""Short trainings on scikit-learn's digits, healthy and with one planted fault, looked at by the probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lightning_tricks.init import lecun_normal_
from lightning_tricks.probes import Probe, Snapshot
from lightning_tricks.watch.selection import is_probed

Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def sgd(learning_rate: float) -> Optimizer:
    return lambda parameters: torch.optim.SGD(parameters, lr=learning_rate)


def digits(*, normalised: bool = True) -> tuple[Tensor, Tensor]:
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32), torch.tensor(data.target)
    return ((x - x.mean(0)) / x.std(0).clamp_min(1e-6) if normalised else x), y


def deep(
    activation: Callable[[], nn.Module], depth: int, *, width: int = 64, norm: type[nn.Module] | None = None
) -> nn.Sequential:
    """``depth`` hidden layers; hidden layer k has its weights at 2 k and its activation at 2 k + 1 (without norm)."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(64, width) if not layers else nn.Linear(width, width)]
        layers += [norm(width)] if norm is not None else []
        layers += [activation()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def lecun(network: nn.Sequential) -> nn.Sequential:
    """A start that fits saturating units, whatever the depth."""
    for layer in network:
        if isinstance(layer, nn.Linear):
            lecun_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return network


def train(
    network: nn.Module,
    steps: int = 130,
    *,
    normalised: bool = True,
    optimizer: Optimizer = adam,
    every: int = 25,
    seed: int = 0,
    batches: Sequence[tuple[Tensor, Tensor]] | None = None,
) -> list[Snapshot]:
    """The snapshots of a training with batches of 64."""
    generator = torch.Generator().manual_seed(seed)
    x, y = digits(normalised=normalised)
    stepper = optimizer(list(network.parameters()))
    history: list[Snapshot] = []
    for step in range(steps):
        chosen = torch.randint(len(x), (64,), generator=generator)
        batch = (x[chosen], y[chosen]) if batches is None else batches[step % len(batches)]
        probe = Probe(network, stepper, step=step)
        if is_probed(step, every):
            probe.open()
        stepper.zero_grad()
        nn.functional.cross_entropy(network(batch[0]), batch[1]).backward()
        stepper.step()
        probe.close()
        if is_probed(step, every):
            history.append(probe.snapshot())
    return history
