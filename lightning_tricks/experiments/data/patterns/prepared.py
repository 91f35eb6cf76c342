"""Prepared: is validation on the scales of the training, and does what is learned of the training hold there?

Validation of other groups or later times lies elsewhere, and what was learned of the training holds there, more or
less; brought to the training's means and scales it holds less. Where a transform was forgotten it is the other way
round: as they are the patterns lie anywhere, and with the training's means and scales they are as any other.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from lightning_tricks.diagnosis.rules.validation_mismatch import LIMITS as OF_VALIDATION
from lightning_tricks.experiments.data.patterns.copies import are_windows
from lightning_tricks.experiments.data.patterns.features import Space, table_of, values_of
from lightning_tricks.experiments.data.patterns.neighbours import Data
from lightning_tricks.experiments.data.patterns.predicting import fitted, one_hot
from lightning_tricks.experiments.data.patterns.reading import Patterns

_FEATURES = 512  # that are looked at one by one
_NAMED = 8
_MOST = 5_000  # patterns of either
_FEWEST = 60


class Off(NamedTuple):
    """Features that vary in training and validation, and whose median or quartile range is another in the latter.

    Args:
        share: Of all that vary, less that of those which differ as much between the halves of the training: these
            drift, and a split in time is what it should be.
        features: Some of them, each with its two medians.
    """

    share: float
    features: tuple[str, ...]

    @classmethod
    def of(cls, train: Patterns, validation: Patterns) -> Off | None:
        """None where they are not to be compared, as windows of a series."""
        (one, names), (other, _) = (table_of(patterns) for patterns in (train, validation))
        if one.shape[1] != other.shape[1] or all(column.kind == "tokens" for column in train.inputs):
            return None
        if min(len(one), len(other)) < OF_VALIDATION.patterns or are_windows(train):
            return None
        stride = max(1, one.shape[1] // _FEATURES) | 1
        own, others = (each[:, ::stride].double().numpy() for each in (one, other))
        half = len(own) // 2
        (off, vary), (drift, both) = _off(own, others), _off(own[:half], own[half:])
        if not vary.any() or not both.any():
            return None
        share = max(float(off[vary].mean() - drift[both].mean()), 0.0)
        named = np.flatnonzero(off)[:_NAMED]
        middles = (np.median(each[:, named], axis=0) for each in (own, others))
        texts = (f"{names[k * stride]} ({a:.3g}, {b:.3g})" for k, a, b in zip(named, *middles, strict=True))
        return cls(share, tuple(texts))


def _off(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which features have another median or quartile range, and which vary at all."""
    (low, mid, high), (lower, middle, higher) = (np.quantile(x, [0.25, 0.5, 0.75], axis=0) for x in (one, other))
    spread, of_other = high - low, higher - lower
    vary = (spread > 0) & (of_other > 0)
    ratio = np.abs(np.log(np.where(vary, of_other, 1.0) / np.where(vary, spread, 1.0)))
    shift = np.abs(middle - mid) / np.where(vary, np.maximum(spread, of_other), 1.0)
    return vary & ((ratio > math.log(OF_VALIDATION.ratio)) | (shift > OF_VALIDATION.shift)), vary


class Holds(NamedTuple):
    """How well targets are predicted: the error over that of a guess, by patterns of the training for others; and how
    much of the way from a guess to that error is gone for validation, as it is and with the training's scales."""

    known: float
    given: float
    restored: float


def holds(data: Data) -> Holds | None:
    """None where that cannot be told: no targets to predict, other shapes, too few patterns."""
    targets = _targets(data)
    if targets is None or data.validation is None or len(data.train) < _FEWEST:
        return None
    wanted, own, other = targets
    some, others = (_some(len(each)) for each in (own, other))
    try:
        as_it_is = data.space(data.validation)[others]
    except ValueError:
        return None
    restored = dataclasses.replace(Space.scaled_by(data.validation), components=data.space.components)(data.validation)
    model = fitted(data.features[some], wanted[some], bent=True)
    is_class = wanted.shape[1] > 1
    guess = _error(_guess(own[some], wanted[some], is_class), own[some], is_class)
    known = _error(model.scores, own[some], is_class)
    unit = max(guess - known, 1e-12)
    given, brought = ((guess - _error(model(x), other[others], is_class)) / unit for x in (as_it_is, restored[others]))
    return Holds(known / max(guess, 1e-12), given, brought)


def _targets(data: Data) -> tuple[Tensor, Tensor, Tensor] | None:
    """What is to be predicted, a column a class; targets of the training and of validation."""
    if data.validation is None:
        return None
    if data.classes is not None and data.validation_classes is not None:
        names = np.union1d(data.classes, data.validation_classes)
        own, other = (np.searchsorted(names, each) for each in (data.classes, data.validation_classes))
        return one_hot(own, max(len(names), 2)), torch.from_numpy(own), torch.from_numpy(other)
    own_values, other_values = values_of(data.train.target), values_of(data.validation.target)
    if own_values is None or other_values is None:
        return None
    numbers = torch.from_numpy(own_values)
    return numbers[:, None], numbers, torch.from_numpy(other_values)


def _some(count: int) -> Tensor:
    return torch.randperm(count, generator=Generator().manual_seed(0))[:_MOST].sort().values


def _guess(own: Tensor, wanted: Tensor, is_class: bool) -> Tensor:
    """The most frequent class, or the median."""
    said = wanted.sum(0) if is_class else own.median()
    return said.double().expand(len(own), wanted.shape[1])


def _error(said: Tensor, targets: Tensor, is_class: bool) -> float:
    """The share of wrong classes, or the mean distance."""
    if is_class:
        return float((said.argmax(1) != targets).double().mean())
    return float((said[:, 0] - targets).abs().mean())
