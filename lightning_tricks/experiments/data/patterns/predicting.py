"""Predicting: what a small model says of patterns that it has not seen, of the same data and of others."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Generator, Tensor

_FOLDS = 5
_UNITS = 200  # random rectifiers, of whose outputs classes are predicted
_RIDGE = 0.05
_KNOTS, _UNITS_BESIDE, _RIDGE_BESIDE = 5, 100, 0.01  # of single features, and what goes with these


@dataclasses.dataclass(frozen=True)
class Model:
    """Ridge regression on features, random rectifiers of them and, if ``bent``, single features with knots.

    Args:
        scores: For every pattern what is said of it, fitted without its fold.
    """

    scores: Tensor
    _standard: tuple[Tensor, Tensor]
    _drawn: tuple[Tensor, Tensor]
    _knots: Tensor
    _inner: tuple[Tensor, Tensor]
    _weights: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """What it says of others."""
        inputs = _inputs((features - self._standard[0]) / self._standard[1], self._drawn, self._knots)
        return (_with_ones((inputs - self._inner[0]) / self._inner[1]) @ self._weights).float()


def fitted(features: Tensor, wanted: Tensor, weights: Tensor | None = None, *, bent: bool = False) -> Model:
    """To any numbers of these patterns, of which some may count less."""
    generator = Generator().manual_seed(0)
    scale = features.mean(0), features.std(0).clamp(min=1e-6)
    x = (features - scale[0]) / scale[1]
    units, ridge = (_UNITS_BESIDE, _RIDGE_BESIDE) if bent else (_UNITS, _RIDGE)
    units = min(units, len(x) // 4)
    drawn = torch.randn(x.shape[1], units, generator=generator) / math.sqrt(x.shape[1])
    at = drawn, torch.randn(units, generator=generator)
    knots = x.quantile(torch.linspace(0, 1, _KNOTS + 2)[1:-1], 0) if bent else x[:0]
    inputs = _inputs(x, at, knots)
    inner = inputs.mean(0), inputs.std(0).clamp(min=1e-6)
    inputs, wanted = _with_ones((inputs - inner[0]) / inner[1]), wanted.double()
    fold = torch.randperm(len(x), generator=generator) % _FOLDS
    counted = torch.ones(len(x), 1).double() if weights is None else weights.double()[:, None]
    products = [
        ((counted[own] * inputs[own]).T @ inputs[own], (counted[own] * inputs[own]).T @ wanted[own])
        for own in (fold == k for k in range(_FOLDS))
    ]
    square, cross = torch.stack([p[0] for p in products]).sum(0), torch.stack([p[1] for p in products]).sum(0)
    eye = ridge * torch.eye(inputs.shape[1], dtype=torch.float64)
    scores = torch.zeros(len(x), wanted.shape[1], dtype=torch.float64)
    for k, (own_square, own_cross) in enumerate(products):
        damped = float((fold != k).sum()) * eye
        scores[fold == k] = inputs[fold == k] @ torch.linalg.solve(square - own_square + damped, cross - own_cross)
    whole = torch.linalg.solve(square + len(x) * eye, cross)
    return Model(scores.float(), scale, at, knots, inner, whole)


def _inputs(x: Tensor, drawn: tuple[Tensor, Tensor], knots: Tensor) -> Tensor:
    return torch.cat([x, (x @ drawn[0] + drawn[1]).relu(), *((x - knot).relu() for knot in knots)], 1)


def _with_ones(inputs: Tensor) -> Tensor:
    return torch.cat([inputs, torch.ones(len(inputs), 1)], 1).double()


def one_hot(classes: np.ndarray, count: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(classes), count)


def out_of_fold_scores(features: Tensor, classes: np.ndarray, count: int) -> Tensor:
    """For every pattern what a model says of its class that has not seen its fold."""
    return fitted(features, one_hot(classes, count)).scores
