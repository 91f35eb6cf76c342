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
Made = tuple[nn.Module, Tensor, int]


class Shaped(nn.Module):
    """A layer, and what a forward does with its output; ``entries``: of which of its numbers the result's are made."""

    def __init__(self, layer: nn.Module, way: Way, *, before: Way, behind: Way) -> None:
        super().__init__()
        self.layer, self.way, self.before, self.behind = layer, way, before, behind

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        self.entries, self.shape = self.way(torch.arange(out.numel()).view(out.shape)), out.shape
        return self.behind(self.way(self.before(out)))


def images() -> Made:
    return nn.Conv2d(1, C, 1), torch.randn(2, 1, 4, 6), 1


def series() -> Made:
    return nn.Linear(5, C), torch.randn(2, 4, 5), 2


def square() -> Made:
    """As wide as there are classes."""
    return nn.Conv2d(1, C, 1), torch.randn(2, 1, C, C), 1


def same(out: Tensor) -> Tensor:
    return out


def look(make: Callable[[], Made], way: Way, before: Way = same, behind: Way = same) -> tuple[Snapshot, int]:
    """The snapshot of a step, and the number of positions by following every number."""
    torch.manual_seed(0)
    layer, x, units = make()
    model = Shaped(layer, way, before=before, behind=behind)
    with probe(model) as p:
        out = model(x)
        F.cross_entropy(out, torch.zeros(out.shape[:1] + out.shape[2:], dtype=torch.long)).backward()
    assert not [reason for reason in p.snapshot().not_seen.values() if "could not be" in reason]
    at = list(torch.unravel_index(model.entries.movedim(1, -1).reshape(-1, C), model.shape))
    at.pop(units)
    positions = torch.stack(at).sum(0) if len(at) == 1 else sum(index * 1000**place for place, index in enumerate(at))
    return p.snapshot(), max(len(row.unique()) for row in positions)


MIXED: dict[str, tuple[Callable[[], Made], Way]] = {
    "images viewed": (images, lambda out: out.view(-1, C)),
    "images reshaped": (images, lambda out: out.reshape(-1, C)),
    "images viewed as series": (images, lambda out: out.view(2, -1, C).transpose(1, 2)),
    "images viewed in two steps": (images, lambda out: out.view(2, 4, 6, C).flatten(0, 2)),
    "images, rows before channels": (images, lambda out: out.transpose(1, 2).reshape(-1, C)),
    "as wide as there are classes": (square, lambda out: out.reshape(-1, C)),
    "series viewed": (series, lambda out: out.view(2, C, 4)),
}
RIGHT: dict[str, tuple[Callable[[], Made], Way]] = {
    "images permuted": (images, lambda out: out.permute(0, 2, 3, 1).reshape(-1, C)),
    "images moved": (images, lambda out: out.movedim(1, -1).contiguous().view(-1, C)),
    "images as they are": (images, same),
    "images flattened": (images, lambda out: out.flatten(2)),
    "series flattened": (series, lambda out: out.view(-1, C)),
    "series turned": (series, lambda out: out.transpose(1, 2)),
    "series there and back": (series, lambda out: out.view(2, 2, 2, C).view(8, C)),
    "a last dimension of one": (series, lambda out: out.unsqueeze(1).squeeze(1).swapaxes(-1, -2)),
}


@pytest.mark.parametrize("name", [*MIXED, *RIGHT])
def test_positions_are_those_by_following_every_number(name: str) -> None:
    snapshot, positions = look(*{**MIXED, **RIGHT}[name])
    (record,) = snapshot.losses
    assert record.positions == positions
    assert (positions > 1) == (name in MIXED)
    layer, x, units = {**MIXED, **RIGHT}[name][0]()
    assert (record.weighted, record.layer_shape) == ("layer", layer(x).shape)
    assert record.unit_axis == units - len(record.layer_shape)
    assert repr(Snapshot.from_dict(snapshot.to_dict()).losses) == repr((record,))  # NaN equals itself up to Python 3.12
    assert snapshot.merge(snapshot).losses[0].positions == positions


SCALES: dict[str, Way] = {
    "a temperature": lambda out: 3 * (out / 2.0),
    "log-probabilities": lambda out: out.log_softmax(1),
    "another precision": lambda out: out.to(torch.float64),
    "an offset": lambda out: out + 1.0,
}


@pytest.mark.parametrize("name", SCALES)
def test_scales_between_hide_nothing(name: str) -> None:
    for way, expected in ((MIXED["images viewed"], 3), (RIGHT["images permuted"], 1)):
        for scale in ({"before": SCALES[name]}, {"behind": SCALES[name]}):
            assert look(*way, **scale)[0].losses[0].positions == expected


UNKNOWN: dict[str, tuple[Callable[[], Made], Way]] = {
    "another axis, chosen": (square, lambda out: out.transpose(1, 2)),
    "a part": (images, lambda out: out[:, :, 1:].reshape(-1, C)),
    "another order": (images, lambda out: out[:, :, [1, 0, 2, 3]].reshape(-1, C)),
    "another number of units": (images, lambda out: out.permute(0, 2, 3, 1).reshape(-1, 6)[:, :C]),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_may_be_meant_or_is_not_followed_is_not_told(name: str) -> None:
    assert look(*UNKNOWN[name])[0].losses[0].positions == 0


def test_an_activation_is_no_layer() -> None:
    assert look(*MIXED["images viewed"], before=torch.sigmoid)[0].losses[0].positions == 0
