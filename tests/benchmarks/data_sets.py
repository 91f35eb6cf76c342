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


def table(name: str) -> Callable[[Generator], tuple[Tensor, Tensor]]:
    """One of scikit-learn's own."""

    def make(_: Generator) -> tuple[Tensor, Tensor]:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        return torch.tensor(x).float(), torch.tensor(y)

    return make


def digits(generator: Generator) -> tuple[Tensor, Tensor]:
    x, y = table("digits")(generator)
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
    "breast cancer": table("breast_cancer"),
    "wine": table("wine"),
    "images": images,
    "tokens": tokens,
}


TABLES = {"houses": houses, "diabetes": table("diabetes")}
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
    found = copies(data, share, generator)
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


def healthy(seed: int) -> Iterator[tuple[str, Callable[[], tuple[Any, Any]]]]:
    """Data without a fault, also such as look odd on purpose: names, and what makes training and validation."""
    for name, make in ALL.items():
        yield name, lambda make=make: _halves(_as_it_is(make, seed))
        yield f"{name}, oversampled", lambda make=make: _halves(_oversampled(make, seed))
        if name != "tokens":
            yield f"{name}, augmented", lambda make=make: _halves(_augmented(make, seed))
    for name, make in {**VALUES, **uneven()}.items():
        yield f"{name}, to predict", lambda make=make: _halves(_as_it_is(make, seed))
    for apart in (0.5, 1.0, 1.5, 2.0, 3.0):
        yield f"overlap {apart}", lambda apart=apart: _halves(_as_it_is(overlapping(apart), seed))
    yield "few values", lambda: _halves(_as_it_is(discrete, seed))
    yield "windows in order", lambda: _halves(split(*windows(_drawn(seed)), seed, in_order=True))
    yield from ((name, lambda make=make: make(seed)) for name, make in ON_PURPOSE.items())


def _drawn(seed: int) -> Generator:
    return Generator().manual_seed(100 + seed)


def _halves(data: Split) -> tuple[Any, Any]:
    return (data.x, data.y), (data.x_val, data.y_val)


def _as_it_is(make: Any, seed: int) -> Split:
    return split(*make(_drawn(seed)), seed)


def _oversampled(make: Any, seed: int) -> Split:
    data = _as_it_is(make, seed)
    again = torch.randint(len(data.y), (len(data.y) // 2,), generator=_drawn(seed))
    return data._replace(x=torch.cat([data.x, data.x[again]]), y=torch.cat([data.y, data.y[again]]))


def _augmented(make: Any, seed: int) -> Split:
    data = _as_it_is(make, seed)
    spread = data.x.flatten(1).std(0).view(data.x.shape[1:])
    near = data.x + 0.02 * spread * torch.randn(data.x.shape, generator=_drawn(seed))
    return data._replace(x=torch.cat([data.x, near]), y=torch.cat([data.y, data.y]))


def _measured_twice(seed: int) -> tuple[Any, Any]:
    x, y = overlapping(4.0)(_drawn(seed))
    twice = torch.arange(1200).repeat_interleave(2)  # and a pattern on one side of the split only
    train, validation = twice[:1600], twice[1600:]
    return (x[train], y[train]), (x[validation], y[validation])


def _clicks(seed: int) -> tuple[Any, Any]:
    x = overlapping(4.0)(_drawn(seed))[0]
    clicks = (torch.rand(1200, generator=_drawn(seed)) < 0.05).long()
    return (x[:900], clicks[:900]), (x[900:], clicks[900:])


def _disjoint(seed: int) -> tuple[Any, Any]:
    x, y = overlapping(4.0)(_drawn(seed))
    return (x[y < 2], y[y < 2]), (x[y == 2], y[y == 2])


def _few_of_a_class(seed: int) -> tuple[Any, Any]:
    x, y = images(_drawn(seed))
    few = torch.cat([(y != 0).nonzero().flatten(), (y == 0).nonzero().flatten()[:3]])
    return (x[few[100:]], y[few[100:]]), (x[few[:100]], y[few[:100]])


ON_PURPOSE: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "measured twice": _measured_twice,
    "clicks": _clicks,
    "disjoint classes": _disjoint,
    "mirrored with its mask": lambda seed: (Moving(images(_drawn(seed))[0], 0.5, both=True), None),
    "a few of a class": _few_of_a_class,
}
