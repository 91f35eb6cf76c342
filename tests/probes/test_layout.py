"""From how many positions of a layer's output the classes that a loss takes come, whatever lies between the two."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.probes import Snapshot, probe

C = 3
Way = Callable[[Tensor], Tensor]


class Shaped(nn.Module):
    """A layer, and what a forward does with its output; ``entries`` is where each number of the loss's input lay."""

    def __init__(self, layer: nn.Module, way: Way) -> None:
        super().__init__()
        self.layer, self.way = layer, way

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        self.entries = self.way(torch.arange(out.numel()).double().view(out.shape)).long()
        self.shape = out.shape
        return self.way(out)


def images() -> tuple[nn.Module, Tensor, int]:
    return nn.Conv2d(1, C, 1), torch.randn(2, 1, 4, 6), 1


def series() -> tuple[nn.Module, Tensor, int]:
    return nn.Linear(5, C), torch.randn(2, 4, 5), 2


def square() -> tuple[nn.Module, Tensor, int]:
    """As wide as there are classes."""
    return nn.Conv2d(1, C, 1), torch.randn(2, 1, C, C), 1


def look(make: Callable[[], tuple[nn.Module, Tensor, int]], way: Way) -> tuple[Snapshot, int]:
    """The snapshot of a step, and the number of positions by following every number."""
    torch.manual_seed(0)
    layer, x, units = make()
    model = Shaped(layer, way)
    with probe(model) as p:
        out = model(x)
        F.nll_loss(out, torch.zeros(out.shape[:1] + out.shape[2:], dtype=torch.long)).backward()
    entries = model.entries.movedim(1, -1).reshape(-1, C)
    at = list(torch.unravel_index(entries, model.shape))
    at.pop(units)
    position = sum(index * 1000**place for place, index in enumerate(at))
    assert not [reason for reason in p.snapshot().not_seen.values() if "could not be" in reason]
    return p.snapshot(), max(len(row.unique()) for row in position)


KNOWN: dict[str, tuple[Callable[[], tuple[nn.Module, Tensor, int]], Way]] = {
    "images viewed": (images, lambda out: out.view(-1, C)),
    "images reshaped": (images, lambda out: out.reshape(-1, C)),
    "images viewed as series": (images, lambda out: out.view(2, -1, C).transpose(1, 2)),
    "images viewed in two steps": (images, lambda out: out.view(2, 4, 6, C).flatten(0, 2)),
    "images viewed, scaled and normalised": (images, lambda out: (out.view(-1, C) / 2.0 * 3).log_softmax(1)),
    "images, rows before channels": (images, lambda out: out.transpose(1, 2).reshape(-1, C)),
    "as wide as there are classes": (square, lambda out: out.reshape(-1, C)),
    "series viewed": (series, lambda out: out.view(2, C, 4)),
    "series viewed behind a softmax": (series, lambda out: out.softmax(2).view(2, C, 4)),
    "images permuted": (images, lambda out: out.permute(0, 2, 3, 1).reshape(-1, C)),
    "images moved": (images, lambda out: out.movedim(1, -1).contiguous().view(-1, C)),
    "images as they are": (images, lambda out: out),
    "images flattened": (images, lambda out: out.log_softmax(1).flatten(2)),
    "series flattened": (series, lambda out: out.view(-1, C)),
    "series turned": (series, lambda out: out.float().transpose(1, 2)),
    "series there and back": (series, lambda out: out.view(2, 2, 2, C).view(8, C)),
    "channels shuffled": (lambda: (nn.Conv2d(1, C, 1), torch.randn(2, 1, 4, 6), 1), lambda out: out.unsqueeze(2).transpose(1, 2).reshape(2, C, 4, 6)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_positions_are_those_by_following_every_number(name: str) -> None:
    make, way = KNOWN[name]
    snapshot, positions = look(make, way)
    (record,) = snapshot.losses
    assert record.positions == positions
    assert (positions > 1) == (list(KNOWN).index(name) < 9)
    assert (record.weighted, record.layer_shape) == ("layer", snapshot.weighted[0].shape)
    assert Snapshot.from_dict(snapshot.to_dict()).losses == (record,)
    assert snapshot.merge(snapshot).losses[0].positions == positions


UNKNOWN: dict[str, tuple[Callable[[], tuple[nn.Module, Tensor, int]], Way]] = {
    "another axis, chosen": (square, lambda out: out.transpose(1, 2)),
    "a part": (images, lambda out: out[:, :, 1:].reshape(-1, C)),
    "another order": (images, lambda out: out[:, :, [1, 0, 2, 3]].reshape(-1, C)),
    "another number of units": (images, lambda out: out.permute(0, 2, 3, 1).reshape(-1, 6)[:, :C]),
    "an activation between": (images, lambda out: out.sigmoid().view(-1, C)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_may_be_meant_or_is_not_followed_is_not_told(name: str) -> None:
    assert look(*UNKNOWN[name])[0].losses[0].positions == 0
