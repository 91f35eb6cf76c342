"""Data with numbers to predict, for the benchmark of data faults: with noise of the usual kind, and of odd ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sklearn import datasets
from torch import Generator, Tensor


def houses(generator: Generator, noise: float = 0.4) -> tuple[Tensor, Tensor]:
    """A table as of house prices: income, place and less."""
    income, place = torch.randn(2000, generator=generator).exp(), torch.rand(2000, 2, generator=generator)
    rest = torch.randn(2000, 5, generator=generator)
    y = income.sqrt() + (6 * place[:, 0]).sin() + 0.3 * rest[:, 0] + noise * torch.randn(2000, generator=generator)
    return torch.cat([income[:, None], place, rest], 1), y


def houses_exact(generator: Generator) -> tuple[Tensor, Tensor]:
    """The same, of which more can be predicted."""
    return houses(generator, 0.1)


def heavy(generator: Generator) -> tuple[Tensor, Tensor]:
    """A table with noise of Student's distribution with two degrees of freedom."""
    x, drawn = torch.randn(1500, 6, generator=generator), torch.randn(3, 1500, generator=generator)
    return x, x.sum(1) + (2 * x[:, 0]).sin() + 0.2 * drawn[0] / (drawn[1:].square().mean(0)).sqrt()


def friedman(load: Callable[..., Any], noise: float) -> Callable[[Generator], tuple[Tensor, Tensor]]:
    def make(generator: Generator) -> tuple[Tensor, Tensor]:
        x, y = load(1200, random_state=int(torch.randint(2**31, (), generator=generator)))
        y = torch.tensor(y).float()
        return torch.tensor(x).float(), y + noise * y.std() * torch.randn(1200, generator=generator)

    return make


def places(generator: Generator) -> tuple[Tensor, Tensor]:
    """Images with a bright blot, whose column is asked for."""
    at = 12 * torch.rand(1000, 2, generator=generator) + 2
    axis = torch.arange(16)
    blot = (-((axis[:, None] - at[:, 0, None, None]) ** 2 + (axis - at[:, 1, None, None]) ** 2) / 8).exp()
    return blot[:, None] + 0.1 * torch.randn(1000, 1, 16, 16, generator=generator), at[:, 1]


def uneven() -> dict[str, Callable[[Generator], tuple[Tensor, Tensor]]]:
    """Numbers whose noise is honest and odd: without a mean, skewed, larger in some places, cut off, or most of it."""
    noises: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
        "cauchy": lambda x, y, z: y + 0.1 * z / z.roll(1),
        "skewed": lambda x, y, z: y + 0.3 * (1.2 * z).exp(),
        "uneven": lambda x, y, z: y + 0.3 * z * x[:, 0].exp(),
        "prices": lambda x, y, z: (y + 0.3 * z).exp(),
        "clipped": lambda x, y, z: (y + 0.5 * z).clamp(-2, 2),
        "two noises": lambda x, y, z: y + torch.where(x[:, 1].roll(1) > 1.2, 3.0, 0.2) * z,
        "noise": lambda x, y, z: y + 4 * z,
        "counts": lambda x, y, z: torch.poisson((y + 2).exp().clamp(max=200), generator=Generator().manual_seed(0)),
    }

    def make_with(noise: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Generator], tuple[Tensor, Tensor]]:
        def make(generator: Generator) -> tuple[Tensor, Tensor]:
            x = torch.randn(1500, 5, generator=generator)
            return x, noise(x, (2 * x[:, 0]).sin() + x[:, 1:].sum(1), torch.randn(1500, generator=generator))

        return make

    return {name: make_with(noise) for name, noise in noises.items()}


VALUES = {
    "houses": houses_exact,
    "friedman 1": friedman(datasets.make_friedman1, 0.1),
    "friedman 2": friedman(datasets.make_friedman2, 0.1),
    "places": places,
    "tails": heavy,
}
