"""Validation that honestly differs from the training: later, of other groups, with other shares of classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor

from tests.benchmarks.data_sets import Split, digits, images, overlapping, table
from tests.benchmarks.data_values import VALUES, houses

Pair = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def by_group(x: Tensor, y: Tensor, generator: Generator) -> Split:
    """Validation is the fifth that is nearest to one pattern."""
    z = x.flatten(1).float()
    z = (z - z.mean(0)) / z.std(0).clamp(min=1e-6)
    near = (z - z[int(torch.randint(len(z), (), generator=generator))]).norm(dim=1).argsort()
    inside, others = near[: len(x) // 5], near[len(x) // 5 :]
    return Split(x[others], y[others], x[inside], y[inside])


def by_size(x: Tensor, y: Tensor, generator: Generator) -> Split:
    """Validation is the upper fifth of a column."""
    z = x.flatten(1)
    column = z[:, int(torch.randint(z.shape[1], (), generator=generator))]
    order = (column + 1e-6 * column.std() * torch.randn(len(x), generator=generator)).argsort()
    first, last = order[: len(x) * 4 // 5], order[len(x) * 4 // 5 :]
    return Split(x[first], y[first], x[last], y[last])


def by_time(x: Tensor, y: Tensor, generator: Generator) -> Split:
    """Patterns in the order of time, with which their columns drift, each at its own rate; validation comes last."""
    x, y = (each[torch.randperm(len(x), generator=generator)] for each in (x, y))
    now = torch.linspace(0, 1, len(x)).view(-1, *[1] * (x.dim() - 1))
    x = x + now * x.std(0) * torch.randn(x.shape[1:], generator=generator)
    cut = len(x) * 4 // 5
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


def by_clock(x: Tensor, y: Tensor, generator: Generator) -> Split:
    """In the order of time, which is a column."""
    x, y = (each[torch.randperm(len(x), generator=generator)] for each in (x, y))
    cut, x = len(x) * 4 // 5, torch.cat([x, torch.arange(float(len(x)))[:, None]], 1)
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


def other_shares(x: Tensor, y: Tensor, generator: Generator) -> Split:
    """Validation with a class ten times as rare as in the training."""
    order = torch.randperm(len(x), generator=generator)
    train, rest = order[: len(x) * 7 // 10], order[len(x) * 7 // 10 :]
    rare = y[rest] == int(torch.randint(int(y.max()) + 1, (), generator=generator))
    rest = rest[~rare | (torch.rand(len(rest), generator=generator) < 0.1)]
    return Split(x[train], y[train], x[rest], y[rest])


def prepared(data: Split) -> Split:
    """Columns standardised by the training's mean and standard deviation; images by one of all."""
    over = 0 if data.x.dim() == 2 else tuple(range(data.x.dim()))
    mean, std = data.x.mean(over), data.x.std(over)
    std = std.clamp(min=1e-3 * float(data.x.std()))
    return data._replace(x=(data.x - mean) / std, x_val=(data.x_val - mean) / std)


CLASSES = {"breast cancer": table("breast_cancer"), "wine": table("wine"), "overlap": overlapping(2.0)}
NUMBERS = {"houses": houses, "diabetes": table("diabetes"), **{k: VALUES[k] for k in ("friedman 1", "friedman 2")}}
PICTURES = {"digits": digits, "images": images}


def shifted(seed: int) -> Iterator[tuple[str, Callable[[], Pair]]]:
    """Names, and what makes training and validation; tables and images once as they are and once standardised."""
    of_all: list[tuple[str, Callable[..., Split], dict[str, Any]]] = [
        ("by group", by_group, {**CLASSES, **NUMBERS, **PICTURES}),
        ("by size", by_size, {**CLASSES, **NUMBERS}),
        ("by time", by_time, {**CLASSES, **NUMBERS}),
        ("by clock", by_clock, {**CLASSES, **NUMBERS}),
        ("other shares", other_shares, {**CLASSES, **PICTURES}),
    ]
    for name, cut, kinds in of_all:
        for kind, make in kinds.items():
            for standard in (False, True):
                told = f"{kind}, {name}{', standardised' if standard else ''}"
                yield told, lambda cut=cut, make=make, standard=standard: _pair(cut, make, standard, seed)


def _pair(cut: Callable[..., Split], make: Any, standard: bool, seed: int) -> Pair:
    generator = Generator().manual_seed(200 + seed)
    data = cut(*make(generator), generator)
    data = prepared(data) if standard else data
    return (data.x, data.y), (data.x_val, data.y_val)
