"""Data that are drawn or put together: words, series, maps, rare classes. In units that need no standardization."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import sklearn.datasets as sets
import torch
from torch import Tensor

WORDS = 12
LIKELY = 0.8
SIDE = 12  # of the maps


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Patterns and targets before they are split; ``sources`` says where each is from."""

    x: Tensor
    y: Tensor
    classes: int
    sources: Tensor | None = None


def text(count: int, length: int, seed: int = 0) -> Tensor:
    """Each word is mostly given by the two before it."""
    generator = torch.Generator().manual_seed(seed)
    follows = torch.randint(WORDS, (WORDS, WORDS), generator=generator)
    words = torch.randint(WORDS, (count, length))
    for k in range(2, length):
        likely = torch.rand(count) < LIKELY
        words[:, k] = torch.where(likely, follows[words[:, k - 2], words[:, k - 1]], words[:, k])
    return words


def words() -> Drawn:
    """Texts, each word with the next one as target."""
    found = text(2400, 17)
    return Drawn(found[:, :-1], found[:, 1:], WORDS)


def series() -> Drawn:
    """Noisy sines of any pace, each value with the next one as target."""
    time, count = torch.arange(25.0), 2000
    phase, pace = 2 * math.pi * torch.rand(count, 1), 0.3 + 0.5 * torch.rand(count, 1)
    values = 1.4 * torch.sin(pace * time + phase) + 0.15 * torch.randn(count, len(time))
    return Drawn(values[:, :-1, None], values[:, 1:, None], 0)


def pixels() -> Drawn:
    """The digits as pixels in [0, 1]."""
    x, y = _digits()
    return Drawn(x / 16, y, 10)


def scanners() -> Drawn:
    """The digits from three devices: as they are, inverted, and turned with less contrast."""
    x, y = _digits()
    x, sources = x / 8 - 1, torch.arange(len(x)) % 3
    turned = 0.5 * x.view(-1, 8, 8).transpose(1, 2).flatten(1)
    devices = torch.stack([x, -x, turned])
    return Drawn(devices[sources, torch.arange(len(x))], y, 10, sources)


def overlap() -> Drawn:
    """Two normal clouds in ten dimensions, two standard deviations apart."""
    y = torch.arange(4000) % 2
    return Drawn(torch.randn(4000, 10) + 2.0 / math.sqrt(10) * y[:, None], y, 2)


def rings() -> Drawn:
    """A cloud and a ring around it that overlap, in four dimensions of which two tell nothing."""
    y = torch.arange(4000) % 2
    angle, radius = 2 * math.pi * torch.rand(4000), 0.7 + 1.3 * y + 0.65 * torch.randn(4000)
    return Drawn(torch.cat([(radius * torch.stack([angle.cos(), angle.sin()])).T, torch.randn(4000, 2)], 1), y, 2)


def spots() -> Drawn:
    """Images with noise and one bright spot, which covers about one pixel in fifty; the target is its mask."""
    count, place = 1200, torch.arange(SIDE)
    centre, radius = 2 + (SIDE - 5) * torch.rand(count, 2, 1), 0.75 + 0.45 * torch.rand(count, 1, 1)
    apart = ((place - centre[:, 0]) ** 2)[:, :, None] + ((place - centre[:, 1]) ** 2)[:, None]
    mask = apart < radius**2
    image = 1.6 * mask + torch.randn(count, SIDE, SIDE)
    return Drawn(image.flatten(1), mask.flatten(1).long(), 2)


def tags() -> Drawn:
    """Tables of counts with several labels for each pattern."""
    x, y = sets.make_multilabel_classification(1600, n_features=24, n_classes=6, n_labels=2, random_state=0)
    table = torch.tensor(x, dtype=torch.float32)
    return Drawn((table - table.mean(0)) / table.std(0), torch.tensor(y), 6)


def _digits() -> tuple[Tensor, Tensor]:
    x, y = sets.load_digits(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def _fixed(draw: Callable[[], Drawn]) -> Callable[[], Drawn]:
    """The same at every call, whatever was drawn before."""

    def drawn() -> Drawn:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return draw()

    return drawn


DRAWN: dict[str, Callable[[], Drawn]] = {
    draw.__name__: _fixed(draw) for draw in (words, series, pixels, scanners, overlap, rings, spots, tags)
}
