"""Dead units: over enough patterns, however few come at a time; more than half; and only where patterns differ."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from lightning_tricks.diagnosis import find
from lightning_tricks.diagnosis.rules.dead_units import find_dead_units
from lightning_tricks.probes import Snapshot

from ..trainings import deep, digits, sgd, train

FEW = 8  # patterns of a batch


def small_batches(network: nn.Module, looks: int) -> list[Snapshot]:
    x, y = digits()
    batches = [(x[i : i + FEW], y[i : i + FEW]) for i in range(0, 64 * FEW, FEW)]
    return train(network, steps=looks, optimizer=sgd(0.01), every=1, batches=batches)


def held_down(units: int) -> nn.Sequential:
    torch.manual_seed(0)
    network = deep(nn.ReLU, 3)
    nn.init.zeros_(network[2].bias)
    nn.init.constant_(network[2].bias[:units], -50.0)
    return network


def test_patterns_accumulate_over_as_many_small_batches_as_it_takes() -> None:
    history = [*map(Snapshot.light, small_batches(held_down(64), looks=24))]
    first, *_ = find(history)
    assert (first.problem, first.layer, first.severity) == ("dead_units", "3", "critical")
    assert first.evidence["dead units"] == "64 of 64"
    assert 150 <= first.evidence["patterns looked at"] < 150 + FEW
    assert find_dead_units(history[:18]) == []  # not enough of them


def test_units_that_are_active_on_other_patterns_each_time_are_not_dead() -> None:
    """In a batch of 8 most units of a sparse layer are zero; which they are changes."""
    torch.manual_seed(0)
    network = deep(nn.ReLU, 3)
    nn.init.constant_(network[2].bias, -0.45)
    history = small_batches(network, looks=24)
    assert all(snapshot.activation("3").dead_share > 0.5 for snapshot in history)  # type: ignore[union-attr]
    assert find_dead_units(history) == []


def test_units_for_other_batches_are_not_dead() -> None:
    """Of batches of three kinds each wakes a third of the units."""
    x, y = digits()
    network = nn.Sequential(nn.Linear(64, 60), nn.ReLU(), nn.Linear(60, 10))
    nn.init.constant_(network[0].bias, -10.0)  # type: ignore[arg-type]
    network[0].weight.data[:, :3] = 20.0 * torch.eye(3).repeat(20, 1)
    batches = [(torch.cat([torch.eye(3)[k % 3].expand(64, 3), 0.1 * x[:64, 3:]], 1), y[:64]) for k in range(6)]
    history = train(network, steps=6, optimizer=sgd(1e-6), every=1, batches=batches)
    assert all(snapshot.activation("1").dead_share > 0.5 for snapshot in history)  # type: ignore[union-attr]
    assert find_dead_units(history) == []


@pytest.mark.parametrize(("dead", "found"), [(32, False), (33, True)])
def test_half_is_not_over_half(dead: int, found: bool) -> None:
    network = held_down(dead)
    nn.init.constant_(network[2].bias[dead:], 1.0)
    assert bool(find_dead_units(train(network, steps=5, optimizer=sgd(1e-3), every=1))) == found


def test_a_stored_history_without_the_units_is_judged_by_the_last_looks() -> None:
    history = [*map(Snapshot.light, small_batches(held_down(64), looks=24))]
    old = [dataclasses.replace(s, activations=tuple(r.with_values(awake="") for r in s.activations)) for s in history]
    assert find_dead_units(old) == []


def test_units_that_see_one_pattern_only_are_not_judged() -> None:
    x, y = digits()
    torch.manual_seed(0)
    history = train(deep(nn.ReLU, 3), batches=[(x[:1].expand(64, 64), y[:64])])
    assert any(record.dead_share > 0.5 for record in history[-1].activations)
    assert find_dead_units(history) == []


def test_only_biases_that_hold_the_units_are_to_be_reset() -> None:
    x, y = digits()
    shifted = torch.cat([torch.full((len(x), 1), 100.0), x[:, 1:]], 1)
    torch.manual_seed(0)
    network = deep(nn.ReLU, 3)
    nn.init.constant_(network[0].weight[:, 0], -0.5)
    by_input = train(network, steps=5, optimizer=sgd(1e-6), every=1, batches=[(shifted[:64], y[:64])])
    by_biases = train(held_down(64), steps=5, optimizer=sgd(1e-6), every=1)
    (one,), (other,) = find_dead_units(by_input), find_dead_units(by_biases)
    assert "reset_bias" not in [remedy.action for remedy in one.remedies]
    assert other.remedies[0].text.startswith("set the biases to 0, nn.init.zeros_(model[2].bias)")


def test_a_step_killed_only_what_was_alive() -> None:
    alive, dead = (train(held_down(units), steps=5, optimizer=sgd(1e-6), every=1) for units in (0, 64))
    later = [dataclasses.replace(snapshot, step=snapshot.step + 5) for snapshot in dead]
    (at_start,), (by_a_step,) = find_dead_units(dead), find_dead_units([*alive, *later])
    for found, lowers in ((at_start, False), (by_a_step, True)):
        assert ("lower_learning_rate" in [remedy.action for remedy in found.remedies]) is lowers
