"""The measures of a weighted operation from its sums, by NumPy; merging."""

import math

import pytest
import torch

from lightning_tricks.probes.records.weighted import WeightedRecord
from lightning_tricks.stats import Sample, WeightedSums

X = torch.randn(80, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5


def record(x=X):
    y = 2.0 * x[:, :3]
    sums = WeightedSums.of(Sample(x, 0), Sample(y, 0), y)
    host = sums.with_arrays(iter([array.numpy() for array in sums.arrays()]))
    return WeightedRecord.of("net.0", "linear", 1, "net.0.weight", None, 5, y.numel(), host, None)


def test_measures():
    x, found = X.numpy(), record()
    assert found.input_mean == pytest.approx(x.mean())
    assert found.input_std == pytest.approx(math.sqrt(x.var(0).mean()))
    assert found.mean_energy == pytest.approx((x.mean(0) ** 2).sum() / (x**2).sum(1).mean())
    assert found.mean == pytest.approx(2 * x[:, :3].mean())
    assert found.std == pytest.approx(2 * math.sqrt(x[:, :3].var(0).mean()))
    assert math.isnan(found.error_signal)
    assert (found.units, found.patterns, found.elements) == (3, 80, 240)


def test_merged_is_the_record_of_both():
    both, whole = record(X[:30]).merge(record(X[30:])), record()
    for name, value in whole.measures().items():
        assert getattr(both, name) == pytest.approx(value, nan_ok=True), name
    assert both.elements == 240
