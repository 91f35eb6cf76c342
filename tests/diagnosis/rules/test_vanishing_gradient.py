"""The gradient vanishes along what leads into the loss, and nowhere else."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from lightning_tricks.diagnosis.rules.vanishing_gradient import find_vanishing_gradient
from lightning_tricks.probes import ActivationRecord, Probe, Snapshot, WeightedRecord


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


def fading(*norms: float, last: int = 120) -> list[Snapshot]:
    weighted = tuple(WeightedRecord(str(k), order=k, error_signal=norm, elements=1) for k, norm in enumerate(norms))
    return [Snapshot(step, weighted=weighted) for step in (0, 10, 50, last)]


@pytest.mark.parametrize(
    ("norms", "last", "severity"),
    [
        ((1e-4, 1e-2, 1.0), 120, "warning"),
        ((1e-4, 1e-2, 1.0), 90, "info"),  # a start of many layers mends itself
        ((1e-7, 1e-3, 1.0), 90, "critical"),
        ((0.0, 1.0, 1.0), 90, "critical"),  # nothing comes to the first layer
        ((5e-4, *[1.0] * 60), 120, None),  # one layer among many that fades no further
    ],
)
def test_how_much_is_lost_and_for_how_long(norms: tuple[float, ...], last: int, severity: str | None) -> None:
    found = find_vanishing_gradient(fading(*norms, last=last))
    assert [finding.severity for finding in found] == ([severity] if severity else [])


def test_units_that_look_dead_on_a_few_patterns_are_to_be_judged_first() -> None:
    looks = []
    for look in fading(1e-4, 1e-2, 1.0):
        sparse = ActivationRecord("act", "relu", order=1, units=8, patterns=8, dead_share=0.9, awake="80")
        looks.append(dataclasses.replace(look, activations=(sparse,)))
    (found,) = find_vanishing_gradient(looks)
    assert found.severity == "info"
