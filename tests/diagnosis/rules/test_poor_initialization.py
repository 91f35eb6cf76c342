"""A wrong start is blamed on weights only where the weights make signals fade; a slow one is told of."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from lightning_tricks.diagnosis import Trait, find
from lightning_tricks.diagnosis.rules.poor_initialization import find_poor_initialization
from lightning_tricks.probes import Snapshot

from ..trainings import adam, deep, digits, lecun, sgd, train


class TwoStages(nn.Module):
    """A softmax between two networks: what the second receives is nearly constant, whatever its weights are."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
        self.second = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        with torch.no_grad():
            self.second[0].weight.mul_(scale)  # type: ignore[operator,union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).softmax(1))


def test_a_flat_softmax_in_front_of_a_layer_is_not_its_weights_fault() -> None:
    torch.manual_seed(0)
    history = train(TwoStages())
    assert history[0].activation("second.1").std < 0.03  # type: ignore[union-attr]
    assert find_poor_initialization(history) == []
    assert [finding for finding in find(history) if finding.rank] == []


def test_weights_behind_it_that_are_too_small_are() -> None:
    torch.manual_seed(0)
    (finding,) = find_poor_initialization(train(TwoStages(scale=1e-3)))
    assert finding.layer == "second.0"


@pytest.mark.parametrize("scale", [0.0, 0.01], ids=["constant", "faint"])
def test_an_input_that_hardly_varies_is_not_the_weights_fault(scale: float) -> None:
    x, y = digits()
    torch.manual_seed(0)
    batches = [(x[:1] + scale * x[i : i + 64], y[i : i + 64]) for i in range(0, 640, 64)]
    assert find_poor_initialization(train(deep(nn.ReLU, 3), batches=batches)) == []


def test_what_is_faint_behind_dead_units_is_not_the_weights_fault() -> None:
    torch.manual_seed(0)
    network = deep(nn.ReLU, 4)
    nn.init.constant_(network[2].bias[:56], -20.0)  # type: ignore[index]
    history = train(network, steps=17, optimizer=sgd(1e-4))
    assert history[0].activation("5").std < 0.03  # type: ignore[union-attr]
    assert find_poor_initialization(history) == []


def small(depth: int) -> nn.Sequential:
    torch.manual_seed(0)
    network = deep(nn.Sigmoid, depth)
    for layer in network[::2]:
        nn.init.normal_(layer.weight, std=0.02)  # type: ignore[arg-type]
    return network


def test_a_slow_start_is_information_at_the_top() -> None:
    history = train(small(3), steps=400, optimizer=adam)
    first, *_ = findings = find(history)
    assert [finding.rank for finding in findings] == [0] * len(findings)
    assert (first.problem, first.remedies[0].action) == ("poor_initialization", "initialize")
    assert Trait.SLOW in first.traits
    assert first.evidence["last step with the loss of the start"] >= 100
    assert "It learns, but slowly" in first.explanation


def test_a_start_as_faint_that_lost_no_time_is_not_slow() -> None:
    torch.manual_seed(0)
    history = train(deep(nn.ReLU, 8), steps=260)
    assert all(Trait.SLOW not in finding.traits for finding in find(history))


def test_a_training_that_still_stands_is_not_slow_but_sick() -> None:
    found = find(train(small(3), steps=260, optimizer=sgd(1e-3)))
    assert found[0].rank
    assert all(Trait.SLOW not in finding.traits for finding in found)


def test_a_number_says_at_which_layer_it_is_where_that_is_not_the_first_faulty_one() -> None:
    torch.manual_seed(0)
    history = train(deep(nn.ReLU, 8))
    (finding,) = find_poor_initialization(history)
    (shown,) = (each for each in finding.decided_by if each.name.startswith("pre-activation std over the input's at "))
    layer = shown.name.rpartition(" ")[2]
    assert layer != finding.layer
    (after,) = (each for each in history[0].activations if each.name == str(int(layer) + 1))
    assert after.std / history[0].weighted[0].input_std == pytest.approx(shown.value, rel=0.01)


def started(factor: float, *layers: int, activation: type[nn.Module] = nn.Tanh, steps: int = 17) -> list[Snapshot]:
    torch.manual_seed(0)
    network = lecun(deep(activation, 4))
    with torch.no_grad():
        for layer in layers:
            network[layer].weight.mul_(factor)  # type: ignore[operator,union-attr]
    return train(network, steps=steps, optimizer=sgd(1e-4))


@pytest.mark.parametrize(
    ("factor", "layers", "layer", "sudden"),
    [(60.0, (0,), "0", True), (4.0, (0, 2, 4, 6), "0", False), (1e-3, (2,), "2", True)],
    ids=["loud at once", "growing", "faint"],
)
def test_the_layer_at_which_it_begins(factor: float, layers: tuple[int, ...], layer: str, sudden: bool) -> None:
    history = started(factor, *layers, activation=nn.ReLU if not sudden else nn.Tanh)
    (found,) = find_poor_initialization(history)
    assert (found.layer, Trait.AT_ONE_LAYER in found.traits) == (layer, sudden)


def test_a_jump_is_no_start_that_mends_and_stays_named_when_it_has() -> None:
    sick, well = started(60.0, 0), train(lecun(deep(nn.Tanh, 4)), steps=80)
    assert [find_poor_initialization(sick[:looks])[0].severity for looks in (2, 3)] == ["info", "warning"]
    mended = [*sick, *(dataclasses.replace(s, step=s.step + 17) for s in well)]
    assert find_poor_initialization(mended)[0].severity == "warning"
    assert find_poor_initialization([*sick[:4], *mended[len(sick) :]])[0].severity == "info"  # over at once
