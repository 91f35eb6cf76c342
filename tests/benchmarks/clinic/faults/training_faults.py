"""Faults of data and settings: input, learning rate, overfitting, batch statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import data as datasets
from ..setup import Setup
from .kind import Kind


def scale_input(setup: Setup, place: int, factor: float) -> None:
    setup.data = setup.data.map(lambda x: factor * x)


def offset_input(setup: Setup, place: int, by: float) -> None:
    setup.data = setup.data.map(lambda x: x + by)


def huge_feature(setup: Setup, place: int, factor: float) -> None:
    """One feature in another unit, as milligrams beside kilograms."""
    scales = torch.ones(setup.data.features)
    scales[setup.data.x.std(0).argmax()] = factor
    setup.data = setup.data.map(lambda x: x * scales)


def learning_rate(setup: Setup, place: int, factor: float) -> None:
    setup.lr *= factor


def few_noisy_patterns(setup: Setup, place: int, count: float) -> None:
    """So few patterns, three in ten with a wrong target, learned by heart."""
    few = datasets.first(setup.data, int(count))
    setup.data = datasets.noisy_labels(few, 0.3, setup.case.seed)


def nan_in_data(setup: Setup, place: int, since: float) -> None:
    """A missing value in one pattern of every batch from a step on."""

    def spoil(step: int, x: Tensor) -> Tensor:
        if step < since:
            return x
        x = x.clone()
        x[0, 0] = float("nan")
        return x

    setup.spoiled = spoil


def small_batches(setup: Setup, place: int, size: float) -> None:
    setup.batch = int(size)


def slow_statistics(setup: Setup, place: int, momentum: float) -> None:
    for norm in setup.norms:
        norm.momentum = momentum


def left_in_eval(setup: Setup, place: int, strength: float) -> None:
    """The statistics it was made with, for good. Lightning keeps such modes over a fit."""
    for norm in setup.norms:
        norm.eval()


def dropout_before(setup: Setup, place: int, p: float) -> None:
    """Dropout directly before the normalisation: in training the variance it sees is another than in use."""
    path = setup.network.places[place].before
    convolution = isinstance(setup.hidden(place), nn.Conv2d)
    setup.network.put(path, nn.Dropout2d(p) if convolution else nn.Dropout(p))


TRAINING_FAULTS: dict[str, Kind] = {
    "input scaled": Kind(scale_input, "unnormalized_input", "input"),
    "input offset": Kind(offset_input, "unnormalized_input", "input"),
    "huge feature": Kind(huge_feature, "unnormalized_input", "input"),
    "learning rate high": Kind(learning_rate, "learning_rate_too_high", "training"),
    "learning rate low": Kind(learning_rate, "learning_rate_too_low", "training"),
    "few noisy patterns": Kind(few_noisy_patterns, "overfitting", "training"),
    "nan in data": Kind(nan_in_data, "non_finite", "input", in_code=True),
    "small batches": Kind(small_batches, "batch_norm_mismatch", "norms", in_code=True),
    "slow statistics": Kind(slow_statistics, "batch_norm_mismatch", "norms", in_code=True),
    "left in eval": Kind(left_in_eval, "batch_norm_mismatch", "norms", in_code=True),
    "dropout before norm": Kind(dropout_before, "batch_norm_mismatch", "place", in_code=True),
}
