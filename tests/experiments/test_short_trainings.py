"""memorise, learnable and rate answer their question on what is planted."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lightning_tricks as lt

X = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long() + 2 * (X[:, 1] > 0).long()
BATCHES = [(X[i : i + 32], Y[i : i + 32]) for i in range(0, 256, 32)]


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 4))


@pytest.mark.usefixtures("usual_trials")
def test_what_can_be_learned_by_heart_is() -> None:
    model = net()
    adam = torch.optim.Adam(model.parameters(), 0.01, weight_decay=3.0)  # is left out, as dropout is
    found = lt.experiments.memorise(model, BATCHES[0], F.cross_entropy, adam)
    assert found.numbers["own"] > 0.8
    assert math.isnan(found.numbers["adam"])
    assert found.steps < 200  # no longer than it takes
    assert not found.doubt


def test_behind_a_softmax_it_is_said_how_much_can_be_reached() -> None:
    """By a training that cannot come further it is not said to have failed: by the same way as its share."""
    found = lt.experiments.memorise(nn.Sequential(net(), nn.Softmax(1)), BATCHES[0], F.cross_entropy)
    best = math.log(math.e + 3) - 1  # of four classes: one output of 1, the others 0
    assert found.numbers["reachable"] == pytest.approx(1 - best / -_entropy(BATCHES[0][1]), abs=0.01)
    assert f"(behind softmax {found.numbers['reachable']:.0%} can be reached)" in found.answer
    free = lt.experiments.memorise(net(), BATCHES[0], F.cross_entropy)
    assert free.numbers["reachable"] == 1.0
    assert "reached" not in free.answer


def _entropy(targets: Tensor) -> float:
    shares = targets.bincount() / len(targets)
    return float((shares * shares.log()).nansum())


@pytest.mark.usefixtures("usual_trials")
def test_where_adam_learns_the_optimizer_is_at_fault() -> None:
    model = net()
    found = lt.experiments.memorise(model, BATCHES[0], F.cross_entropy, torch.optim.SGD(model.parameters(), 1e-6))
    assert found.numbers["own"] < 0.3
    assert found.numbers["adam"] > 0.8
    assert not found.doubt


class Forgetful(nn.Module):
    """Puts out the mean of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).mean(0, keepdim=True).expand(len(x), -1)


def test_what_no_optimizer_learns_by_heart_is_not_called_healthy() -> None:
    found = lt.experiments.memorise(Forgetful(), BATCHES[0], F.cross_entropy)
    assert "can be learned by heart" in found.doubt
    snapshots = lt.checkup(net(), BATCHES[0], F.cross_entropy, experiments="none").history
    assert lt.Diagnosis([], snapshots).healthy
    doubted = lt.Diagnosis([], snapshots, experiments=[found])
    assert not doubted.healthy
    assert doubted.verdict == "Unknown: no fault was seen, but not even a few patterns can be learned by heart."


@pytest.mark.parametrize("targets", [Y, X[:, :1] * 3 + 5.0, X[:, 0]], ids=["classes", "numbers", "one number"])
def test_what_inputs_tell_is_seen_without_a_network(targets: Tensor) -> None:
    told = [(X[i : i + 32], targets[i : i + 32]) for i in range(0, 256, 32)]
    order = torch.randperm(256, generator=torch.Generator().manual_seed(1))
    mixed = [(x, targets[order[32 * k : 32 * k + 32]]) for k, (x, _) in enumerate(told)]
    assert max(lt.experiments.learnable(told).numbers.values()) > 0.5
    assert max(lt.experiments.learnable(mixed).numbers.values()) < 0.3


@pytest.mark.usefixtures("usual_trials")
def test_a_better_rate_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_tricks.experiments.arms import trials

    monkeypatch.setattr(trials, "SORT", 20)
    monkeypatch.setattr(trials, "DECLARE", 60)
    model = net()
    found = lt.experiments.rate(model, BATCHES, F.cross_entropy, torch.optim.Adam(model.parameters(), 1e-6))
    assert 1e-4 < found.numbers["lr"] < 0.3
    assert "too low" in found.answer
    good = lt.experiments.rate(model, BATCHES, F.cross_entropy, torch.optim.Adam(model.parameters(), 0.01))
    assert good.numbers["lr"] == pytest.approx(0.01)
