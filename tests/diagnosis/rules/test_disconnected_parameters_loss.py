"""A loss that is multiplied by 0 is named with its head; one that waits for its weight, or is met, is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.diagnosis import find
from lightning_tricks.diagnosis.rules.disconnected_parameters import find_disconnected_parameters
from lightning_tricks.probes import Probe, Snapshot


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.one = nn.Sequential(nn.Linear(8, 16), nn.Tanh()), nn.Linear(16, 3)
        self.two = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.one(h), self.two(h)


def trained(weight: Callable[[int], float], steps: int = 121, target: float | None = None) -> list[Snapshot]:
    torch.manual_seed(0)
    net, history = TwoHeads(), list[Snapshot]()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(steps):
        x = torch.randn(32, 8)
        probe = Probe(net, optimizer, step=step)
        if step % 20 == 0:
            probe.open()
        one, two = net(x)
        wanted = x[:, :1] if target is None else two.detach()
        loss = F.cross_entropy(one, x[:, :3].argmax(1)) + weight(step) * F.mse_loss(two, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        probe.close()
        if step % 20 == 0:
            history.append(probe.snapshot())
    return history


def test_the_head_behind_a_weight_of_zero_is_named() -> None:
    history = trained(lambda step: 1 // 2)
    (found,) = find_disconnected_parameters(history)
    assert (found.severity, found.layer) == ("warning", "two.2")
    assert found.evidence["loss function"] == "mse_loss"
    assert found.evidence["its value"] > 0.0
    assert find(history)[0] == found
    assert find_disconnected_parameters([Snapshot.from_dict(s.to_dict()) for s in history]) == [found]


@pytest.mark.parametrize("history", [
    lambda: trained(lambda step: 0.5), lambda: trained(lambda step: float(step > 70)),
    lambda: trained(lambda step: 0.0, steps=61), lambda: trained(lambda step: 1.0, target=0.0),
], ids=["a weight", "a weight that comes later", "too early to tell", "a loss of 0"])  # fmt: skip
def test_losses_that_are_not_lost(history: Callable[[], list[Snapshot]]) -> None:
    assert find_disconnected_parameters(history()) == []


@pytest.mark.parametrize("changed", [{"activation": "two.1"}, {"input_resolution": 1e-3}], ids=["flat", "half"])
def test_a_signal_that_something_else_takes_away_says_nothing_of_the_weight(changed: dict[str, object]) -> None:
    """An activation on its flat side, and numbers that become 0 in half precision."""
    history = [
        dataclasses.replace(s, losses=tuple(dataclasses.replace(r, **changed) for r in s.losses))  # type: ignore[arg-type]
        for s in trained(lambda step: 0.0)
    ]
    assert find_disconnected_parameters(history) == []
