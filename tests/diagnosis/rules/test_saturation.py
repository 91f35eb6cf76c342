"""Saturation is judged where something is trained."""

from __future__ import annotations

import torch
from torch import nn

from lightning_tricks.diagnosis.rules.saturation import find_saturation

from ..trainings import train


def encoder() -> nn.Sequential:
    """Frozen, and on its flat sides: it works as it is."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
    for layer in network[::2]:
        nn.init.normal_(layer.weight, std=1.0)
    return network.requires_grad_(False)


def head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def test_a_frozen_encoder_is_not_judged() -> None:
    history = train(nn.Sequential(encoder(), head()), steps=40)
    assert history[-1].activation("0.1").saturation > 0.5  # type: ignore[union-attr]
    assert find_saturation(history) == []


def test_frozen_layers_behind_trainable_ones_hand_the_gradient_on_and_are() -> None:
    (finding,) = find_saturation(train(nn.Sequential(nn.Linear(64, 64), encoder(), head()), steps=40))
    assert finding.layer == "1.1"
    assert finding.rank > 0


def test_frozen_layers_are_judged_where_their_input_is_trained() -> None:
    class Trained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift, self.encoder, self.head = nn.Parameter(torch.zeros(64)), encoder(), head()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.encoder(x + self.shift))

    assert [finding.layer for finding in find_saturation(train(Trained(), steps=40))] == ["encoder.1"]


def test_the_rate_is_blamed_for_what_was_not_so_from_the_start() -> None:
    late = train(nn.Sequential(nn.Linear(64, 64), encoder().requires_grad_(True), head()), steps=40)
    fine = train(nn.Sequential(nn.Linear(64, 64), nn.Identity(), head()), steps=1)
    (at_start,), (driven,) = find_saturation(late), find_saturation([*fine, *late[1:]])
    assert at_start.remedies[0].action == "initialize"
    assert driven.remedies[0].action == "lower_learning_rate"
