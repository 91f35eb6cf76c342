"""Batches that come sorted are named, and excuse what they do to units; batches that are unusual and mixed do not."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.diagnosis import find
from lightning_tricks.diagnosis.rules.dead_units import find_dead_units
from lightning_tricks.diagnosis.rules.unshuffled_data import find_unshuffled_data
from lightning_tricks.probes import Snapshot, probe
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
    (found,) = find_unshuffled_data(run(by_class(), size))
    assert found.remedies[0].action == "shuffle"
    assert found.evidence["classes in a batch"] < 3
    assert found.evidence["share of a batch's largest class"] > 0.5
    assert not any("std" in name for name in found.evidence)  # of class numbers it says nothing


def test_an_old_record_tells_the_classes_all_the_same() -> None:
    history = run(by_class())
    old = [replace(s, losses=tuple(replace(record, wanted=()) for record in s.losses)) for s in history]
    assert find_unshuffled_data(old) == find_unshuffled_data(history) != []


def test_a_network_that_learns_all_the_same_makes_it_information() -> None:
    (found,) = find_unshuffled_data(run(by_class(), 100))
    assert found.severity == "info"


def with_losses(history: list[Snapshot], losses: list[float]) -> list[Snapshot]:
    """The same with the losses of the steps between the looks: as long as they are, then again from the first."""
    endless, found = itertools.cycle(losses), []
    for before, snapshot in itertools.pairwise([history[0], *history]):
        recent = tuple(itertools.islice(endless, max(snapshot.step - before.step, 1)))
        records = tuple(replace(record, value=recent[-1]) for record in snapshot.losses)
        found.append(replace(snapshot, loss=recent[-1], losses=records, recent_losses=recent))
    return found


def test_a_loss_that_leaps_over_a_guess_wherever_the_class_changes_makes_it_more() -> None:
    history = run(by_class(), 32)
    (leaps,) = find_unshuffled_data(with_losses(history, [6.0, 1.0, 0.2, 0.1, 0.1, 0.1]))
    (calm,) = find_unshuffled_data(with_losses(history, [1.0, 0.5, 0.2, 0.1, 0.1, 0.1]))
    assert (leaps.severity, calm.severity) == ("warning", "info")


@pytest.mark.parametrize(("validation", "severity"), [(1.7, "warning"), (0.9, "info"), (float("nan"), "info")])
def test_a_high_loss_on_validation_makes_it_more(validation: float, severity: str) -> None:
    calm = with_losses(run(by_class(), 32), [1.0, 0.5, 0.2, 0.1, 0.1, 0.1])
    (found,) = find_unshuffled_data([replace(snapshot, validation_loss=validation) for snapshot in calm])
    assert found.severity == severity


def test_before_a_hundred_steps_it_is_information() -> None:
    history = with_losses(run(by_class(), 32), [6.0, 1.0, 0.2])
    (early,) = find_unshuffled_data([snapshot for snapshot in history if snapshot.step < 90])
    assert early.severity == "info"


def mean_squares(prediction: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(prediction, y)


def in_rows(prediction: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(prediction, y)


TARGETS = {
    "one-hot under cross-entropy": (in_rows, lambda y: F.one_hot(y, 10).float()),
    "one-hot under squares": (mean_squares, lambda y: F.one_hot(y, 10).float()),
    "binary": (F.binary_cross_entropy_with_logits, lambda y: (y > 4).float()[:, None]),
    "several labels": (
        F.binary_cross_entropy_with_logits,
        lambda y: torch.stack([y > 4, y > 7, y < 3], 1).float(),
    ),
    "a number": (mean_squares, lambda y: y.float()[:, None] / 10 + 1e-3 * torch.randn(len(y), 1)),
}


@pytest.mark.parametrize("kind", list(TARGETS))
def test_other_targets_that_come_sorted_are_seen_too(kind: str) -> None:
    loss, make = TARGETS[kind]
    x, y = digits()
    aims = make(y)
    network = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, aims.shape[1]))
    for order, count in ((by_class(), 1), (torch.randperm(1797), 0)):
        assert len(find_unshuffled_data(look_at(network, loss, x[order], aims[order]))) == count


def look_at(network: nn.Module, loss: Callable[..., Tensor], x: Tensor, y: Tensor, size: int = 32) -> list[Snapshot]:
    """A look at the beginning as a doctor takes it, and at some of the later steps; nothing is learned."""
    history = []
    for step in (0, 1, 2, 4, 8, 16, 24, 32, 40, 48, 55):
        with probe(network) as p:
            loss(network(x[step * size : (step + 1) * size]), y[step * size : (step + 1) * size]).backward()
        history.append(replace(p.snapshot(), step=step))
    return history


def test_two_calls_of_a_step_are_one_batch() -> None:
    """As a discriminator's: each call has one class, both together have both."""
    network, x = nn.Linear(64, 1), torch.randn(1792, 64)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        first, second = (F.binary_cross_entropy_with_logits(output, torch.full_like(output, each)) for each in (0, 1))
        return first + second

    assert find_unshuffled_data(look_at(network, loss, x, x[:, :1])) == []


def test_a_single_class_in_the_first_batches_is_information() -> None:
    """What a checkup sees of sorted data; where one class is all there is, no epoch brings another."""
    x, y = digits()
    batches = [(x[chosen], y[chosen]) for chosen in by_class()[:96].split(16)]
    history = train(deep(nn.ReLU, 2), 6, every=1, batches=batches)
    (found,) = find_unshuffled_data(history)
    assert found.severity == "info"
    assert find_unshuffled_data([replace(snapshot, epoch=float(snapshot.step)) for snapshot in history]) == []


def test_lacking_what_is_rare_is_no_order() -> None:
    """Three batches in a row without one of 20 rare patterns are what chance brings."""
    x, y = digits()
    rare = torch.zeros(len(y))[:, None]
    rare[:20] = 1.0
    order = torch.cat([torch.arange(20, 220), torch.randperm(20), torch.arange(220, 1797)])
    history = look_at(nn.Linear(64, 1), F.binary_cross_entropy_with_logits, x[order], rare[order])
    assert find_unshuffled_data(history) == []


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
