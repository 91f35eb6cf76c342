"""The gradient vanishes along what leads into the loss, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_tricks.diagnosis.rules.vanishing_gradient import find_vanishing_gradient
from lightning_tricks.probes import Probe, Snapshot


def penalised(units: nn.Module, steps: int) -> list[Snapshot]:
    """A critic with a gradient penalty, whose forward comes first: it leads into the loss by its slopes alone."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 32), units, nn.Linear(32, 32), units, nn.Linear(32, 1))
    optimizer = torch.optim.Adam(critic.parameters(), 1e-3)
    history = []
    for step in range(steps):
        real, fake = torch.randn(32, 2), torch.randn(32, 2) + 2.0
        with Probe(critic, optimizer, step=step) as probe:
            between = (0.5 * real + 0.5 * fake).requires_grad_(True)
            (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
            loss = critic(fake).mean() - critic(real).mean() + 10.0 * (slope.norm(2, 1) - 1.0).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        history.append(probe.snapshot())
    return history


@pytest.mark.parametrize("units", [nn.LeakyReLU(0.2), nn.ReLU(), nn.Tanh()], ids=["leaky", "relu", "tanh"])
def test_the_forward_of_a_gradient_penalty_is_no_layer_without_signal(units: nn.Module) -> None:
    history = penalised(units, steps=5)
    assert any(record.error_signal > 0 for record in history[-1].weighted)
    assert find_vanishing_gradient(history) == []
