"""What one step shows of a network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.experiments.arms.functions import LeftOut
from lightning_tricks.experiments.arms.places import Places
from lightning_tricks.experiments.training import Training

X, Y = torch.randn(16, 6, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3


def places_of(net: nn.Module) -> Places:
    return Places.of(Training.of(net, F.cross_entropy), (X, Y))


class Ends(nn.Module):
    """With activations as functions on the way and at the end."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self.first, self.last, self.end = nn.Linear(6, 6), nn.Linear(6, 3), end

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(torch.tanh(self.first(x)).relu())
        if self.end == "softmax":
            return F.softmax(x, 1)
        if self.end == "sigmoid_":
            return x.sigmoid_()
        return x if self.end != "matmul" else x.relu() @ torch.eye(3)


def test_the_last_function_is_one_behind_all_weights() -> None:
    found = {end: places_of(Ends(end)).last_function for end in ("softmax", "sigmoid_", "", "matmul")}
    assert [None if each is None else (each.name, each.index) for each in found.values()] == [
        ("softmax", 2),
        ("sigmoid", 2),
        None,
        None,
    ]


def test_one_call_is_left_out_and_the_others_are_not() -> None:
    net, plain = Ends("softmax"), Ends("")
    plain.load_state_dict(net.state_dict())
    called = places_of(net).last_function
    assert called is not None
    assert not torch.equal(net(X), plain(X))
    with LeftOut(called):
        assert torch.equal(net(X), plain(X))


def test_layers_with_nothing_nonlinear_between_are_joined() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 5), nn.Linear(5, 3))
    assert places_of(net).joined == ["0", "4"]
    assert places_of(Ends("")).joined == []
