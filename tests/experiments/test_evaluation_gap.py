"""evaluation_gap: running statistics that do not describe the data, and dropout."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt
from lightning_tricks.experiments import evaluation_gap

GENERATOR = torch.Generator().manual_seed(0)
Y = torch.arange(64) % 2
X = torch.randn(64, 6, generator=GENERATOR) + 3.0 * Y[:, None]


def trained(momentum: float, updates: int) -> nn.Sequential:
    """A network that tells the classes apart in training mode."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, momentum=momentum), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(net(X), Y).backward()
        optimizer.step()
    net[1].reset_running_stats()
    for _ in range(updates):
        net(X)
    return net


def spoilt() -> nn.Sequential:
    """The same with running statistics of other data."""
    net = trained(0.1, 60)
    for _ in range(60):
        net(40 * torch.randn(64, 6, generator=GENERATOR) + 200)
    return net


def test_statistics_that_describe_the_data_leave_no_gap():
    numbers = evaluation_gap(trained(0.1, 60), (X, Y), F.cross_entropy).numbers
    assert abs(numbers["gap"]) < 0.05
    assert numbers["settled"] > 0.9


def test_statistics_of_other_data_leave_one_and_a_checkup_says_so():
    net = spoilt()
    numbers = evaluation_gap(net, (X, Y), F.cross_entropy).numbers
    assert numbers["gap"] > 0.3
    assert numbers["evaluation"] > numbers["training"]
    diagnosis = lt.checkup(net, (X, Y), F.cross_entropy, num_batches=2, experiments=["free_outputs", "evaluation_gap"])
    finding = next(each for each in diagnosis.findings if each.problem == "batch_norm_mismatch")
    assert finding.severity == "warning"
    assert finding.proof is not None
    assert finding.proof.name == "evaluation_gap"


def test_those_of_a_new_network_are_no_fault():
    net = trained(0.1, 1)
    assert evaluation_gap(net, (X, Y), F.cross_entropy).numbers["settled"] == pytest.approx(0.1)
    diagnosis = lt.checkup(net, (X, Y), F.cross_entropy, num_batches=2, experiments=["free_outputs", "evaluation_gap"])
    assert not any(each.problem == "batch_norm_mismatch" and each.rank for each in diagnosis.findings)


def test_dropout_is_better_without():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 64), nn.Dropout(0.9), nn.Linear(64, 1))
    numbers = evaluation_gap(net, (X, torch.zeros(64, 1)), F.mse_loss).numbers
    assert numbers["evaluation"] < numbers["training"]
