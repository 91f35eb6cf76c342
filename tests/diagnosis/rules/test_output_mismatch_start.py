"""A first loss far over that of a guess is named by its reason, and forgiven where the training gets over it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.diagnosis import find
from lightning_tricks.diagnosis.rules.output_mismatch import find_output_mismatch
from tests.diagnosis.custom import Loss, fit, said
from tests.diagnosis.trainings import deep


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Cosine(nn.Module):
    """Logits that are cosines times a scale."""

    def __init__(self, scale: float, units: int) -> None:
        super().__init__()
        self.body, self.scale = nn.Sequential(deep(nn.ReLU, 2)[:-1], nn.Linear(64, units)), scale
        self.head = nn.Parameter(torch.randn(10, units))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.normalize(self.body(x)) @ F.normalize(self.head).T


@pytest.mark.parametrize(("scale", "units"), [(16.0, 32), (64.0, 32), (64.0, 8)])
def test_an_alarm_at_the_start_is_taken_back_when_the_loss_has_come_down(scale: float, units: int) -> None:
    network = Cosine(scale, units)
    history = fit(network, optimizer=torch.optim.Adam(network.parameters(), 3e-3), steps=200)
    assert history[-1].loss < 0.2
    assert [finding for finding in find(history) if finding.rank] == []


def test_cosines_times_a_number_are_given_the_time_to_come_down() -> None:
    """A margin that is taken from the right class's cosine goes before the number."""

    class Margin(Cosine):
        def forward(self, x: Tensor) -> Tensor:
            return self.scale * (F.linear(F.normalize(self.body(x)), F.normalize(self.head)) - 0.35)

    network = Margin(64.0, 8)
    history = fit(network, optimizer=torch.optim.Adam(network.parameters(), 3e-3), steps=200)
    heard = [find_output_mismatch(history[:looks]) for looks in range(1, len(history) + 1)]
    assert heard[0][0].severity == "info"
    assert [found for findings in heard for found in findings if found.rank] == []
    network = Margin(64.0, 8)
    stuck = fit(network, optimizer=torch.optim.SGD(network.parameters(), 1e-6), steps=120)
    assert find_output_mismatch(stuck)[0].severity == "critical"


def test_a_start_by_a_factor_behind_the_last_layer_is_not_blamed_on_its_weights() -> None:
    (found,) = find_output_mismatch(fit(Cosine(100.0, 8), steps=1))
    assert [remedy.action for remedy in found.remedies] == ["lower_scale"]
    assert find_output_mismatch(fit(Cosine(20.0, 8), steps=1)) == []


def loud(layer: int = -1, factor: float = 100.0) -> nn.Sequential:
    network = deep(nn.ReLU, 2)
    with torch.no_grad():
        network[layer].weight.mul_(factor)  # type: ignore[operator,union-attr]
    return network


def test_a_loud_last_layer_stays_named_however_low_the_loss() -> None:
    history = fit(loud(), steps=400)
    assert history[-1].loss < 1.0
    (found,) = find_output_mismatch(history)
    assert found.severity == "warning"
    assert [remedy.layer for remedy in found.remedies] == ["4"]


def yes_or_no(output: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy(output.sigmoid(), F.one_hot(y, 10).float())


def squares(output: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(output, F.one_hot(y, 10).float())


@pytest.mark.parametrize("loss", [F.cross_entropy, yes_or_no, squares])
def test_a_loud_start_is_named_whatever_the_loss_measures(loss: Loss) -> None:
    assert said(find_output_mismatch(fit(loud(), loss, steps=3))) == [("critical", "4")]


def test_a_few_patterns_and_a_later_look_tell_nothing_of_a_start() -> None:
    assert find_output_mismatch(fit(loud(), steps=3, batch=4)) == []
    late = [dataclasses.replace(s, step=s.step + 5) for s in fit(loud(), steps=3)]
    assert find_output_mismatch(late) == []


def test_outputs_that_are_loud_by_what_comes_in_are_forgiven_when_the_loss_has_come_down() -> None:
    history = fit(loud(2, 200.0), steps=120)
    assert [find_output_mismatch(part)[0].severity for part in (history[:3], history)] == ["critical", "info"]
