"""Small real and drawn data sets: standardized with the training statistics, split by a fixed seed."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import sklearn.datasets as sets
import torch
from torch import Tensor

from .drawn import DRAWN

VALIDATION = 0.25


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set, split.

    Args:
        x, y: Training patterns ``[N, features]`` and targets: class numbers, or ``[N, 1]`` for a regression.
        x_val, y_val: The same for validation.
        classes: Number of classes; 0 for a regression.
        sources: Where each training pattern is from, where the patterns have several sources.
    """

    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor
    classes: int
    sources: Tensor | None = None

    @property
    def features(self) -> int:
        return self.x.shape[1]

    def map(self, function) -> Data:
        """The same function of the patterns of both parts."""
        return dataclasses.replace(self, x=function(self.x), x_val=function(self.x_val))


# What a good model reaches on the validation part: accuracy, R^2 for diabetes, the share of good samples for a GAN.
ALLOWED = {
    "digits": 0.97,
    "wine": 0.97,
    "cancer": 0.96,
    "diabetes": 0.44,
    "moons": 0.98,
    "circles": 0.97,
    "blobs": 0.97,
    "friedman": 0.9,
    "pixels": 0.97,
    "scanners": 0.93,
    "overlap": 0.84,
    "rings": 0.84,
    "spots": 0.95,
    "tags": 0.85,
    "words": 0.7,
    "series": 0.85,
}
REGRESSIONS = ("diabetes", "friedman", "series")


@functools.cache
def load(name: str, split: int = 0) -> Data:
    """A data set by name; ``split`` is the seed of its split."""
    if name in DRAWN:
        drawn = DRAWN[name]()
        order, cut = _split(len(drawn.x), split)
        x, y, sources = drawn.x[order], drawn.y[order], None if drawn.sources is None else drawn.sources[order][cut:]
        return Data(x[cut:], y[cut:], x[:cut], y[:cut], drawn.classes, sources)
    x, y = _raw(name)
    order, cut = _split(len(x), split)
    inputs, targets = torch.tensor(x[order], dtype=torch.float32), torch.tensor(y[order])
    held, kept = inputs[:cut], inputs[cut:]
    mean, std = kept.mean(0), kept.std(0).clamp_min(1e-3)
    if name in REGRESSIONS:
        values = targets.float().unsqueeze(1)
        targets = (values - values[cut:].mean()) / values[cut:].std()
        classes = 0
    else:
        classes = int(targets.max()) + 1
    return Data((kept - mean) / std, targets[cut:], (held - mean) / std, targets[:cut], classes)


def raw_validation(name: str, split: int = 0) -> Tensor:
    """The validation patterns of a table as they were before they were standardized."""
    x, _ = _raw(name)
    order, cut = _split(len(x), split)
    return torch.tensor(x[order[:cut]], dtype=torch.float32)


def _split(count: int, split: int) -> tuple[np.ndarray, int]:
    return np.random.default_rng(split).permutation(count), round(VALIDATION * count)


def _raw(name: str) -> tuple[np.ndarray, np.ndarray]:
    tables = {"digits": "load_digits", "wine": "load_wine", "cancer": "load_breast_cancer", "diabetes": "load_diabetes"}
    if name in tables:
        return getattr(sets, tables[name])(return_X_y=True)
    if name == "moons":
        return sets.make_moons(800, noise=0.12, random_state=0)
    if name == "circles":
        return sets.make_circles(800, noise=0.06, factor=0.5, random_state=0)
    if name == "blobs":
        return sets.make_blobs(800, n_features=8, centers=5, cluster_std=3.0, random_state=0)
    if name == "friedman":
        return sets.make_friedman1(1600, n_features=10, noise=0.5, random_state=0)
    raise ValueError(f"unknown data {name!r}; known are {', '.join(ALLOWED)}")


def first(data: Data, count: int) -> Data:
    """Only so many training patterns."""
    return dataclasses.replace(data, x=data.x[:count], y=data.y[:count])


def imbalanced(data: Data, kept: float, seed: int) -> Data:
    """Keep only a share of the patterns of the upper half of the classes in the training part."""
    rare = data.y >= data.classes // 2
    drawn = torch.rand(len(data.y), generator=torch.Generator().manual_seed(seed)) < kept
    chosen = ~rare | drawn
    return dataclasses.replace(data, x=data.x[chosen], y=data.y[chosen])


def noisy_labels(data: Data, share: float, seed: int) -> Data:
    """Replace a share of the training targets by others, drawn at random from the training targets."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(data.y), generator=generator) < share
    others = data.y[torch.randperm(len(data.y), generator=generator)]
    return dataclasses.replace(data, y=torch.where(wrong.view(-1, *[1] * (data.y.dim() - 1)), others, data.y))


def batches(data: Data, size: int, count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of whole size, from one shuffled pass over the training part after the other."""
    generator = torch.Generator().manual_seed(seed)
    size = min(size, len(data.x))
    found: list[tuple[Tensor, Tensor]] = []
    while len(found) < count:
        order = torch.randperm(len(data.x), generator=generator)
        found += [(data.x[part], data.y[part]) for part in order.split(size) if len(part) == size]
    return found[:count]
