"""Targets that outputs cannot meet, or only by growing, are named; constant ones that are right are not."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.diagnosis import find
from lightning_tricks.diagnosis.rules import output_mismatch_targets
from lightning_tricks.diagnosis.rules.output_mismatch import find_output_mismatch
from tests.diagnosis.custom import fit, look, said
from tests.diagnosis.trainings import deep, digits


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def net(outputs: int = 10) -> nn.Sequential:
    """Two hidden layers; the last linear layer is "4"."""
    return nn.Sequential(*deep(nn.ReLU, 2)[:-1], nn.Linear(64, outputs))


def test_outputs_that_no_target_names_need_many_targets() -> None:
    history = fit(net(outputs=100), steps=130)
    (found,) = find_output_mismatch(history)
    assert (found.severity, found.layer) == ("warning", "4")
    assert found.evidence["largest class in a target"] == 9
    assert "the right number of outputs: 10" in found.remedies[0].text
    assert said(find_output_mismatch(history[:5])) == []


def test_targets_of_one_class() -> None:
    x, y = digits()
    (found,) = find_output_mismatch(fit(net(), data=(x, torch.full_like(y, 3))))
    assert (found.severity, found.layer) == ("warning", "4")
    assert "class 3" in found.explanation


def test_a_contrastive_loss_has_its_positive_always_at_the_same_place() -> None:
    class Contrast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = net(outputs=32)
            self.queue = F.normalize(torch.randn(96, 32), dim=1)

        def forward(self, x: Tensor) -> Tensor:
            query = F.normalize(self.encoder(x), dim=1)
            key = F.normalize(self.encoder(x + 0.1), dim=1).detach()
            return torch.cat([(query * key).sum(1, keepdim=True), query @ self.queue.T], 1) / 0.2

    history = fit(Contrast(), lambda output, y: F.cross_entropy(output, torch.zeros_like(y)), steps=130)
    assert find_output_mismatch(history) == []


def test_segmentation_judges_images_not_pixels() -> None:
    network = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 21, 1))

    def loss(output: Tensor, y: Tensor) -> Tensor:
        target = y[:, None, None].repeat(1, 8, 8) // 2
        target[:, 0] = -100
        return F.cross_entropy(output, target)

    history = fit(network, loss, steps=110, batch=4)
    assert sum(snapshot.losses[0].patterns for snapshot in history) > 500
    assert find_output_mismatch(history) == []


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_a_gradient_explodes_because_weights_grew_to_large_targets(size: float) -> None:
    """Two targets, one far larger than the other: the outputs come to it, and the product of the weights with them."""
    x = torch.randn(500, 4)
    y = torch.stack((size * torch.sin(2.0 * x[:, 0]) + size * x[:, 1], x[:, 2]), 1)
    network = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    history = fit(network, F.mse_loss, optimizer=optimizer, steps=301, every=50, batch=32, data=(x, y))
    found = [finding for finding in find(history) if finding.rank]
    assert [finding.problem for finding in found] == (["output_mismatch"] if size > 1.0 else [])
    if found:
        assert "exploding_gradient" in [finding.problem for finding in found[0].consequences]
        assert "y.mean(0)" in found[0].remedies[0].text


def test_both_losses_of_a_discriminator_have_constant_targets() -> None:
    generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64))
    model = nn.ModuleDict({"g": generator, "d": nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))})
    optimizers = [torch.optim.Adam(model[name].parameters(), 2e-4) for name in ("d", "g")]
    logits = F.binary_cross_entropy_with_logits

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        made = model["g"](torch.randn(len(x), 8))
        real, false = torch.ones(len(x), 1), torch.zeros(len(x), 1)
        optimizers[0].zero_grad()
        (logits(model["d"](x), real) + logits(model["d"](made.detach()), false)).backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        logits(model["d"](made), real).backward()
        optimizers[1].step()

    history = look(model, take_step, optimizers)
    assert len(history[-1].losses) == 3
    assert find_output_mismatch(history) == []


def test_numbers_of_classes_are_none_that_an_activation_is_to_give() -> None:
    pooled = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 10, 3), nn.Tanh(), nn.AvgPool2d(6), nn.Flatten())
    assert find_output_mismatch(fit(pooled)) == []


def test_constant_targets_are_judged_too() -> None:
    """Zeros, which a guess meets exactly, and a constant that a sigmoid cannot give."""
    x, _ = digits()
    loud = deep(nn.ReLU, 1)
    with torch.no_grad():
        loud[-1].weight.mul_(300.0)  # type: ignore[operator,union-attr]
    zeros, threes = (torch.full((len(x), 10), value) for value in (0.0, 3.0))
    mse = nn.functional.mse_loss
    assert find_output_mismatch(fit(loud, mse, steps=3, data=(x, zeros))) == []
    (found,) = find_output_mismatch(fit(nn.Sequential(deep(nn.ReLU, 1), nn.Sigmoid()), mse, data=(x, threes)))
    assert (found.layer, found.severity) == ("1", "critical")


@pytest.mark.parametrize(
    ("low", "high", "words"), [(0.0, math.inf, "above 0"), (-math.inf, 0.0, "below 0"), (-1.0, 1.0, "from -1 to 1")]
)
def test_what_an_activation_can_give_is_said_without_infinities(low: float, high: float, words: str) -> None:
    assert output_mismatch_targets._range(low, high) == words
