"""What is left of a gradient is told apart from what was cleared, overwritten, or changed while nobody looked."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from lightning_tricks.probes import Probe
from lightning_tricks.probes.watch import leftover


def step(
    network: nn.Module, optimizer: torch.optim.Optimizer, number: int, *, batches: int = 1, clear: bool = False
) -> tuple[int, int]:
    """What a look at one step tells: parameters with a new gradient, and with an old one."""
    with Probe(network, optimizer, step=number) as probe:
        for _ in range(batches):
            if clear:
                optimizer.zero_grad()
            network(torch.ones(2, 3)).sum().backward()
        optimizer.step()
    training = probe.snapshot().training
    assert training is not None
    return training.cleared, training.stale


@pytest.fixture
def network() -> nn.Module:
    return nn.Linear(3, 1)


@pytest.fixture
def optimizer(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=0.1)


def test_the_first_look_knows_nothing(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    assert step(network, optimizer, 0, batches=3) == (0, 0)
    assert step(network, optimizer, 1) == (0, 2)
    assert step(network, optimizer, 2, clear=True) == (2, 0)
    assert step(network, optimizer, 3, batches=2) == (0, 2)


def test_a_gap_tells_what_nobody_touched_only(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    step(network, optimizer, 0)
    assert step(network, optimizer, 40) == (0, 2)
    network(torch.ones(2, 3)).sum().backward()
    assert step(network, optimizer, 50) == (0, 0)
    optimizer.zero_grad()
    assert step(network, optimizer, 60) == (0, 0)  # a validation may have done so


def test_gradients_of_zero_are_cleared(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    step(network, optimizer, 0)
    network.weight.grad.data.zero_()  # type: ignore[union-attr, operator]
    assert step(network, optimizer, 1) == (1, 1)


def test_a_model_is_not_kept_alive(optimizer: torch.optim.Optimizer, network: nn.Module) -> None:
    gc.collect()
    before = len(leftover._stepped)
    other = nn.Linear(3, 1)
    step(other, torch.optim.SGD(other.parameters(), lr=0.1), 0)
    assert len(leftover._stepped) == before + 1
    del other
    gc.collect()
    assert len(leftover._stepped) == before


def test_parameters_carry_nothing(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    before = {key: set(vars(parameter)) for key, parameter in network.named_parameters()}
    step(network, optimizer, 0)
    assert {key: set(vars(parameter)) for key, parameter in network.named_parameters()} == before
    assert all(parameter._backward_hooks is None for parameter in network.parameters())
