"""Data for the benchmark of data faults: healthy sets of many kinds, and faults to plant in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from sklearn import datasets
from torch import Generator, Tensor
from torch.utils.data import Dataset

from tests.benchmarks.data_values import VALUES, houses, uneven


class Split(NamedTuple):
    """Training and validation patterns."""

    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor


def split(x: Tensor, y: Tensor, seed: int, *, in_order: bool = False) -> Split:
    order = torch.arange(len(x)) if in_order else torch.randperm(len(x), generator=Generator().manual_seed(seed))
    train, validation = order[: len(x) * 4 // 5], order[len(x) * 4 // 5 :]
    return Split(x[train], y[train], x[validation], y[validation])


def _table(load: Callable[..., Any]) -> Callable[[Generator], tuple[Tensor, Tensor]]:
    def make(_: Generator) -> tuple[Tensor, Tensor]:
        x, y = load(return_X_y=True)
        return torch.tensor(x).float(), torch.tensor(y)

    return make


def digits(generator: Generator) -> tuple[Tensor, Tensor]:
    x, y = _table(datasets.load_digits)(generator)
    return x.view(-1, 1, 8, 8) / 16, y


def images(generator: Generator) -> tuple[Tensor, Tensor]:
    """Coloured shapes in five kinds, shifted, with noise."""
    kinds = torch.nn.functional.avg_pool2d(torch.rand(5, 3, 16, 16, generator=generator), 3, 1, 1)
    y = torch.randint(5, (1000,), generator=generator)
    moves = torch.randint(-3, 4, (1000, 2), generator=generator).tolist()
    x = torch.stack([kinds[c].roll((a, b), (1, 2)) for c, (a, b) in zip(y.tolist(), moves, strict=True)])
    return x + 0.05 * torch.randn(x.shape, generator=generator), y


def tokens(generator: Generator) -> tuple[Tensor, Tensor]:
    """Sentences of three topics, each with its own frequencies of words."""
    y = torch.randint(3, (1200,), generator=generator)
    frequency = torch.softmax(torch.randn(3, 200, generator=generator), 1)
    return torch.multinomial(frequency[y], 20, replacement=True, generator=generator), y


CLASSES = {
    "digits": digits,
    "breast cancer": _table(datasets.load_breast_cancer),
    "wine": _table(datasets.load_wine),
    "images": images,
    "tokens": tokens,
}


TABLES = {"houses": houses, "diabetes": _table(datasets.load_diabetes)}
ALL = {**CLASSES, **TABLES}


def some(count: int, share: float, generator: Generator) -> Tensor:
    return torch.randperm(count, generator=generator)[: max(round(share * count), 1)]


def wrong_labels(data: Split, share: float, generator: Generator) -> Split:
    which, classes = some(len(data.y), share, generator), int(data.y.max()) + 1
    y = data.y.clone()
    y[which] = (y[which] + torch.randint(1, classes, (len(which),), generator=generator)) % classes
    return data._replace(y=y)


def wrong_values(data: Split, share: float, generator: Generator) -> Split:
    """Targets of other patterns."""
    which, y = some(len(data.y), share, generator), data.y.clone()
    y[which] = data.y[torch.randint(len(data.y), (len(which),), generator=generator)]
    return data._replace(y=y)


def contradicting(data: Split, share: float, generator: Generator) -> Split:
    which, classes = some(len(data.y), share, generator), int(data.y.max()) + 1
    other = (data.y[which] + torch.randint(1, classes, (len(which),), generator=generator)) % classes
    return data._replace(x=torch.cat([data.x, data.x[which]]), y=torch.cat([data.y, other]))


def copies(data: Split, share: float, generator: Generator) -> Split:
    to, of = some(len(data.y_val), share, generator), torch.randperm(len(data.y), generator=generator)
    x, y = data.x_val.clone(), data.y_val.clone()
    x[to], y[to] = data.x[of[: len(to)]], data.y[of[: len(to)]]
    return data._replace(x_val=x, y_val=y)


def near_copies(data: Split, share: float, generator: Generator) -> Split:
    found = copies(data, share, Generator().manual_seed(0))
    changed = (found.x_val != data.x_val).flatten(1).any(1)
    spread = data.x.flatten(1).std(0).view(data.x.shape[1:])
    noise = 0.02 * spread * torch.randn(data.x_val.shape, generator=generator)
    mask = changed.view(-1, *[1] * (data.x.dim() - 1))
    return found._replace(x_val=torch.where(mask, found.x_val + noise, found.x_val))


def leak(data: Split, share: float, generator: Generator) -> Split:
    """A column, a pixel or a position that holds the target, in all but this share of the patterns."""
    wrong = some(len(data.y), share, generator)
    given = data.y.clone()
    given[wrong] = data.y[torch.randperm(len(data.y), generator=generator)[: len(wrong)]]
    x = data.x.clone().flatten(1)
    x[:, x.shape[1] // 2] = given.reshape(-1).to(x.dtype)
    return data._replace(x=x.view(data.x.shape))


def unit(data: Split, share: float, generator: Generator) -> Split:
    """Images of bytes beside those in [0, 1]; one column of a table in another unit."""
    which, x = some(len(data.y), share, generator), data.x.clone()
    if x.dim() > 2:
        x[which] *= 255
    else:
        x[which, x.shape[1] // 2] *= 1000
    return data._replace(x=x)


def class_lost(data: Split, share: float, generator: Generator) -> Split:
    """Validation patterns of a class that the training lacks."""
    which, y = some(len(data.y_val), share, generator), data.y_val.clone()
    y[which] = int(data.y.max()) + 1
    return data._replace(y_val=y)


def renumbered(data: Split, generator: Generator) -> Split:
    order = torch.randperm(int(data.y.max()) + 1, generator=generator)
    while bool((order == torch.arange(len(order))).all()):
        order = torch.randperm(len(order), generator=generator)
    return data._replace(y_val=order[data.y_val])


def unprepared(data: Split, _: Generator) -> Split:
    """Training patterns that were standardised, and validation patterns that were not."""
    x, mean, std = data.x, data.x.mean(0), data.x.std(0).clamp(min=0.01 * float(data.x.std()))
    if x.dim() > 2:
        return data._replace(x=(x - x.mean()) / x.std(), x_val=255 * data.x_val)
    return data._replace(x=(x - mean) / std)


def shifted(data: Split, _: Generator) -> Split:
    """Validation that begins to count its classes at 1."""
    return data._replace(y_val=data.y_val + 1)


class Moving(Dataset[Any]):
    """Masks, boxes or key points that stay where the image is mirrored, in a share of the reads; or move with it."""

    def __init__(self, x: Tensor, share: float, *, both: bool = False, kind: str = "masks") -> None:
        self.x, self.share, self.both, self.kind = x, share, both, kind

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        image = self.x[i]
        moved = bool(torch.rand(()) < self.share)
        target = self._target(image.flip(-1) if moved and self.both else image)
        return image.flip(-1) if moved else image, target

    def _target(self, image: Tensor) -> Tensor:
        bright = image.mean(0) > image.mean()
        if self.kind == "masks":
            return bright.float()
        rows, columns = bright[:, : bright.shape[1] // 2].nonzero(as_tuple=True)
        if self.kind == "boxes":
            return torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])[None].float()
        return torch.stack([columns, rows], 1)[:3].float()


def windows(generator: Generator) -> tuple[Tensor, Tensor]:
    time_ = 0.1 * torch.arange(1516)
    series = time_.sin() + 0.2 * torch.randn(1516, generator=generator)
    return series.unfold(0, 16, 1)[:-1], series[16:, None]


def overlapping(apart: float) -> Callable[[Generator], tuple[Tensor, Tensor]]:
    def make(generator: Generator) -> tuple[Tensor, Tensor]:
        y = torch.arange(1200) % 3
        return apart * torch.eye(3, 8)[y] + torch.randn(1200, 8, generator=generator), y

    return make


def discrete(generator: Generator) -> tuple[Tensor, Tensor]:
    x = torch.randint(3, (1200, 7), generator=generator).float()
    return x, (x.sum(1) + torch.randn(1200, generator=generator) > 7).long()


def healthy(seed: int) -> Iterator[tuple[str, Any, Any]]:
    """Data without a fault, also such as look odd on purpose."""
    for name, make in ALL.items():
        data = split(*make(_drawn(seed)), seed)
        yield name, (data.x, data.y), (data.x_val, data.y_val)
        again = torch.randint(len(data.y), (len(data.y) // 2,), generator=_drawn(seed))
        more = torch.cat([data.x, data.x[again]]), torch.cat([data.y, data.y[again]])
        yield f"{name}, oversampled", more, (data.x_val, data.y_val)
        if data.x.is_floating_point():
            spread = data.x.flatten(1).std(0).view(data.x.shape[1:])
            near = data.x + 0.02 * spread * torch.randn(data.x.shape, generator=_drawn(seed))
            more = torch.cat([data.x, near]), torch.cat([data.y, data.y])
            yield f"{name}, augmented", more, (data.x_val, data.y_val)
    for name, make in {**VALUES, **uneven()}.items():
        data = split(*make(_drawn(seed)), seed)
        yield f"{name}, to predict", (data.x, data.y), (data.x_val, data.y_val)
    for apart in (0.5, 1.0, 1.5, 2.0, 3.0):
        data = split(*overlapping(apart)(_drawn(seed)), seed)
        yield f"overlap {apart}", (data.x, data.y), (data.x_val, data.y_val)
    for name, make in (("few values", discrete), ("windows in order", windows)):
        data = split(*make(_drawn(seed)), seed, in_order=name.endswith("order"))
        yield name, (data.x, data.y), (data.x_val, data.y_val)
    yield from _on_purpose(seed)


def _drawn(seed: int) -> Generator:
    return Generator().manual_seed(100 + seed)


def _on_purpose(seed: int) -> Iterator[tuple[str, Any, Any]]:
    x, y = overlapping(4.0)(_drawn(seed))
    twice = torch.arange(1200).repeat_interleave(2)  # measured twice, and a pattern on one side of the split only
    train, validation = twice[:1600], twice[1600:]
    yield "measured twice", (x[train], y[train]), (x[validation], y[validation])
    clicks = (torch.rand(1200, generator=_drawn(seed)) < 0.05).long()
    yield "clicks", (x[:900], clicks[:900]), (x[900:], clicks[900:])
    yield "disjoint classes", (x[y < 2], y[y < 2]), (x[y == 2], y[y == 2])
    picture, kind = images(_drawn(seed))
    yield "mirrored with its mask", Moving(picture, 0.5, both=True), None
    few = torch.cat([(kind != 0).nonzero().flatten(), (kind == 0).nonzero().flatten()[:3]])
    yield "a few of a class", (picture[few[100:]], kind[few[100:]]), (picture[few[:100]], kind[few[:100]])
