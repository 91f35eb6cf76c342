"""Patterns that are not finite are found before they come, and are an alarm only where the loss is none with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks.experiments import finite_values

NAN, INF = float("nan"), float("inf")


def data_with(value, *, target=False):
    x = torch.randn(640, 4, generator=torch.Generator().manual_seed(0))
    y = x[:, :1].clone()
    (y if target else x)[517, 0] = value
    return x, y


def loader_of(x, y, **options):
    return DataLoader(TensorDataset(x, y), 32, **options)


class FillsIn(nn.Module):
    """Missing values are left out on purpose."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x):
        return self.net(x.nan_to_num())


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("target", [False, True], ids=["input", "target"])
def test_the_pattern_is_named(value, target):
    found = finite_values(loader_of(*data_with(value, target=target)))
    assert (found.numbers["not_finite"], found.examples[0].index) == (1, 517)


def test_nothing_is_said_of_finite_numbers_and_of_classes():
    x, _ = data_with(0.0)
    assert finite_values((x, torch.arange(640) % 3)).numbers["not_finite"] == 0


def test_validation_is_counted_by_itself():
    found = finite_values(data_with(0.0), data_with(NAN)).numbers
    assert (found["not_finite"], found["not_finite_in_validation"]) == (0, 1)


@pytest.mark.parametrize("as_list", [False, True], ids=["loader", "batches"])
def test_a_checkup_finds_what_would_come_later(as_list):
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    data = loader_of(*data_with(NAN))
    found = lt.checkup(net, list(data) if as_list else data, nn.functional.mse_loss, experiments=["finite_values"])
    (finding,) = found.findings
    assert (found.state, finding.problem, finding.severity) == ("sick", "non_finite", "critical")
    assert "patterns 517" in finding.remedies[0].text
    assert finding.proof.name == "finite_values"


def test_missing_values_that_are_left_out_are_no_fault():
    loader = loader_of(*data_with(NAN))
    found = lt.checkup(FillsIn(), loader, nn.functional.mse_loss, experiments=["finite_values"])
    assert found.healthy
    assert found.experiments[0].numbers["not_finite"] == 1
