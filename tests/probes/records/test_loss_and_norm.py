"""Records without sums merge by their numbers of patterns."""

import dataclasses
import math

import numpy as np
import pytest

from lightning_tricks.probes import LossRecord, NormalizationRecord


def of(values):
    return LossRecord("loss", patterns=len(values), input_mean=values.mean(), input_std=values.std(),
                      input_min=values.min(), input_max=values.max(), value=values.mean())  # fmt: skip


def test_merged_moments_are_those_of_both():
    values = np.random.default_rng(0).normal(3.0, 2.0, 60)
    both = of(values[:13]).merge(of(values[13:]))
    assert both.patterns == 60
    assert both.input_mean == pytest.approx(values.mean())
    assert both.input_std == pytest.approx(values.std())
    assert (both.input_min, both.input_max) == (values.min(), values.max())
    assert both.value == pytest.approx(values.mean())


def test_unknown_and_empty():
    values = np.ones(3)
    assert math.isnan(of(values).merge(of(values)).target_std)
    empty = dataclasses.replace(of(values), patterns=0)
    assert math.isnan(empty.merge(empty).input_std)


def test_normalizations():
    one = NormalizationRecord("norm", patterns=10, mean_gap=3.0, log_variance_gap=0.0, variance_ratio=4.0)
    other = dataclasses.replace(one, patterns=30, mean_gap=1.0, variance_ratio=1.0)
    both = one.merge(other)
    assert both.mean_gap == pytest.approx(math.sqrt((10 * 9 + 30 * 1) / 40))
    assert both.variance_ratio == 2.0
