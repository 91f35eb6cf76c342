"""Batches that come sorted are named, and excuse what they do to units; batches that are unusual and mixed do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lightning_tricks.diagnosis import find
from lightning_tricks.diagnosis.rules.dead_units import find_dead_units
from lightning_tricks.diagnosis.rules.unshuffled_data import find_unshuffled_data
from lightning_tricks.probes import Snapshot
from tests.diagnosis.sick import SICK
from tests.diagnosis.trainings import deep, digits, sgd, train


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def run(order: Tensor, size: int = 32, rate: float = 0.1) -> list[Snapshot]:
    x, y = digits()
    batches = [(x[chosen], y[chosen]) for chosen in order.split(size)]
    return train(deep(nn.ReLU, 4), 160, optimizer=sgd(rate), batches=batches)


def by_class() -> Tensor:
    return digits()[1].argsort(stable=True)


@pytest.mark.parametrize("size", [16, 32, 100])
def test_data_sorted_by_class_are_named(size: int) -> None:
    history = run(by_class(), size)
    (found,) = find_unshuffled_data(history)
    assert found.severity == "info"
    assert found.remedies[0].action == "shuffle"


def test_a_loss_that_stands_at_that_of_a_guess_makes_it_more_than_information() -> None:
    history = [
        replace(snapshot, loss=2.4, losses=tuple(replace(record, value=2.4) for record in snapshot.losses))
        for snapshot in run(by_class())
    ]
    (found,) = find_unshuffled_data(history)
    assert found.severity == "warning"


def test_what_they_do_to_units_and_loss_is_information() -> None:
    """No part of the history blames the units or the rate once the order has been seen."""
    history = run(by_class(), rate=1.0)
    assert any(finding.rank for looks in range(5, len(history) + 1) for finding in find_dead_units(history[:looks]))
    for looks in range(6, len(history) + 1):
        assert {finding.problem for finding in find(history[:looks]) if finding.rank} <= {"unshuffled_data"}


def test_a_fault_of_the_start_is_no_matter_of_the_order() -> None:
    x, y = digits()
    batches = [(x[chosen], y[chosen]) for chosen in by_class().split(32)]
    network = deep(nn.ReLU, 4)
    nn.init.constant_(network[4].bias, -30.0)  # type: ignore[arg-type]
    found = [finding.problem for finding in find(train(network, optimizer=sgd(0.01), batches=batches)) if finding.rank]
    assert "dead_units" in found


def test_shuffled_data_are_none() -> None:
    assert find_unshuffled_data(run(torch.randperm(1797))) == []


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_few_classes_of_a_batch_drawn_anew_are_none(classes: int) -> None:
    """As metric learning takes them, or one task for each batch."""
    y = digits()[1]
    drawn: list[Tensor] = []
    for _ in range(160):
        chosen = torch.randperm(10)[:classes]
        drawn += [torch.cat([(y == each).nonzero().flatten()[torch.randperm(170)[: 32 // classes]] for each in chosen])]
    assert find_unshuffled_data(run(torch.cat(drawn))) == []


def test_constant_targets_are_no_order() -> None:
    x, y = digits()
    history = train(deep(nn.ReLU, 2), batches=[(x[:64], torch.zeros_like(y[:64]))])
    assert find_unshuffled_data(history) == []
    assert all(find_unshuffled_data(SICK["sorted"].history()[:looks]) == [] for looks in range(5))
