"""Learning rates far too low are named, with a better one; small updates of small gradients are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from lightning_tricks.diagnosis import Finding
from lightning_tricks.diagnosis.history.progress import recent_loss, typical_ratio
from lightning_tricks.diagnosis.rules.learning_rate_too_high import find_learning_rate_too_high
from lightning_tricks.diagnosis.rules.learning_rate_too_low import find_learning_rate_too_low
from lightning_tricks.probes import Snapshot
from tests.diagnosis.trainings import Optimizer, deep, sgd
from tests.diagnosis.watching import Convolutions, Recurrent, adam, classify, clipped, momentum, train, watched


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def alarms(history: Sequence[Snapshot]) -> list[Finding]:
    """Of both rules, above info, for every part of the history that ends at a look."""
    parts = [history[:looks] for looks in range(1, len(history) + 1)]
    found = [(find_learning_rate_too_high(part), find_learning_rate_too_low(part)) for part in parts]
    return [finding for pair in found for rule in pair for finding in rule if finding.rank > 0]


TOO_LOW: dict[str, tuple[Callable[[], nn.Module], Optimizer]] = {
    "relu, adam 1e-6": (lambda: deep(nn.ReLU, 3), adam(1e-6)),
    "tanh, sgd 1e-3": (lambda: deep(nn.Tanh, 3), sgd(1e-3)),
    "batch norm, momentum 1e-5": (lambda: deep(nn.ReLU, 4, norm=nn.BatchNorm1d), momentum(1e-5)),
    "convolutions, adam 1e-5": (lambda: Convolutions(False), adam(1e-5)),
    "recurrent, sgd 1e-3": (Recurrent, sgd(1e-3)),
    "logistic regression, adam 1e-5": (lambda: nn.Linear(64, 10), adam(1e-5)),
}


@pytest.mark.parametrize("name", TOO_LOW)
def test_too_low_is_named_after_a_hundred_steps_and_the_advice_works(name: str) -> None:
    make, optimizer = TOO_LOW[name]
    network = make()
    start = [parameter.detach().clone() for parameter in network.parameters()]
    history = train(network, optimizer, 130, every=25)
    assert alarms(history[:8]) == []
    (finding,) = find_learning_rate_too_low(history)
    assert finding.rank > 0
    assert finding.step == 0
    advised = float(finding.remedies[0].text.rpartition(" ")[2])
    assert advised > 5.0 * history[0].learning_rate
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), start, strict=True):
            parameter.copy_(value)

    def faster(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        made = optimizer(parameters)
        made.param_groups[0]["lr"] = advised
        return made

    again = train(network, faster, 130, every=25)
    assert again[0].loss - recent_loss(again) > 5 * max(history[0].loss - recent_loss(history), 0.0)


@pytest.mark.parametrize("optimizer", [adam(1e-8), sgd(1e-6)])
def test_extremely_low_is_named_within_eight_steps(optimizer: Optimizer) -> None:
    (finding,) = find_learning_rate_too_low(train(deep(nn.ReLU, 3), optimizer, 8, every=1))
    assert finding.severity == "warning"


def test_steps_of_their_own_size_do_not_care_for_clipping() -> None:
    (finding,) = find_learning_rate_too_low(clipped(adam(1e-6), 1e-3))
    assert [remedy.action for remedy in finding.remedies] == ["raise_learning_rate"]


def warmed(target: float, over: int, steps: int) -> list[Snapshot]:
    network = deep(nn.ReLU, 2)
    optimizer = sgd(target)(list(network.parameters()))
    return watched(network, optimizer, classify(network), steps, 25, lambda step: target * min((step + 1) / over, 1.0))


def ended(history: list[Snapshot]) -> list[Snapshot]:
    return [*history[:-1], dataclasses.replace(history[-1], ended=True)]


def test_a_warm_up_is_an_excuse_until_the_training_ends() -> None:
    history = warmed(0.05, over=4000, steps=160)
    assert recent_loss(history) > 0.95 * history[0].loss
    assert alarms(history) == []
    (finding,) = find_learning_rate_too_low(ended(history))
    assert finding.severity == "warning"
    assert finding.remedies[0].action == "shorten_warm_up"
    assert find_learning_rate_too_low(ended(warmed(0.05, over=20, steps=160))) == []


def test_a_warm_up_that_has_stopped_far_too_low_is_no_excuse() -> None:
    (finding,) = find_learning_rate_too_low(warmed(1e-4, over=20, steps=160))
    assert [remedy.action for remedy in finding.remedies] == ["raise_learning_rate"]


def test_a_warm_up_is_no_excuse_for_ever() -> None:
    history = [
        dataclasses.replace(snapshot, step=20 * snapshot.step) for snapshot in warmed(0.05, over=4000, steps=160)
    ]
    assert find_learning_rate_too_low(history) != []


def _dead() -> nn.Module:
    network = deep(nn.ReLU, 3)
    with torch.no_grad():
        network[2].bias.fill_(-10.0)  # type: ignore[operator,union-attr]
    return network


@pytest.mark.parametrize("make", [_dead, lambda: deep(nn.Sigmoid, 10), lambda: deep(nn.ReLU, 20)])
def test_tiny_updates_of_tiny_gradients_are_no_matter_of_the_learning_rate(make: Callable[[], nn.Module]) -> None:
    history = train(make(), sgd(0.1))
    assert not typical_ratio(history[-1]) > 1e-5
    assert alarms(history) == []


def scheduled(rate_at: Callable[[int], float], steps: int = 301) -> list[Snapshot]:
    torch.manual_seed(0)
    network = deep(nn.ReLU, 2)
    return watched(network, sgd(0.1)(list(network.parameters())), classify(network), steps, 25, rate_at)


def test_a_schedule_that_takes_the_rate_away_before_anything_is_learned() -> None:
    """Decay of .8 that is meant for an epoch and comes with every batch."""
    history = scheduled(lambda step: 0.01 * 0.8**step)
    (finding,) = find_learning_rate_too_low(history)
    assert (finding.severity, finding.remedies[0].action) == ("warning", "mend_schedule")
    assert finding.evidence["highest learning rate"] == pytest.approx(0.01)
    assert finding.step < 50
    assert alarms(history[:9]) == []


@pytest.mark.parametrize("rate_at", [
    lambda step: 0.1 * 0.98**step, lambda step: 0.1 * (1 - step / 301), lambda step: 0.1 if step < 150 else 1e-4,
], ids=["slowly", "to nothing at the end", "when it has learned"])  # fmt: skip
def test_schedules_that_let_it_learn_first(rate_at: Callable[[int], float]) -> None:
    assert alarms(scheduled(rate_at)) == []
