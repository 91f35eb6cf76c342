"""The measures of an activation from its sums, by NumPy; merging."""

import math

import numpy as np
import pytest
import torch

from lightning_tricks.activations import by_name
from lightning_tricks.probes.records.activations import ActivationRecord
from lightning_tricks.stats import ActivationSums, Sample, SquareSums

A = torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2


def record(a=A, name="relu", signal=None):
    g = by_name(name).bind()
    x = g(a)
    sums = ActivationSums.of(g, Sample(a, 0), Sample(x, 0), x, g.derivative(a))
    host = sums.with_arrays(iter([array.numpy() for array in sums.arrays()]))
    return ActivationRecord.of("net.1", name, 2, False, host, signal)


def test_measures():
    a = A.numpy()
    found, x = record(signal=SquareSums(4, 16.0)), np.maximum(a, 0)
    assert found.mean == pytest.approx(a.mean())
    assert found.std == pytest.approx(math.sqrt(a.var(0).mean()))
    assert found.linearity == pytest.approx(np.mean([np.corrcoef(a[:, i], x[:, i])[0, 1] ** 2 for i in range(4)]))
    assert found.activity == pytest.approx((a > 0).mean())
    assert found.transmission == pytest.approx((a > 0).mean())
    assert found.mean_energy == pytest.approx((x.mean(0) ** 2).sum() / (x**2).sum(1).mean())
    assert (found.dead_share, found.linear_share, found.error_signal) == (0.0, 0.0, 2.0)
    assert sum(found.histogram) == pytest.approx(1.0)


def test_what_does_not_apply_is_nan():
    found = record(name="tanh")
    assert math.isnan(found.activity)
    assert math.isnan(found.dead_share)
    assert math.isnan(found.error_signal)
    assert record(name="leaky_relu", a=A[:0]).patterns == 0


def test_merged_is_the_record_of_both():
    both, whole = record(A[:50]).merge(record(A[50:])), record()
    for name, value in whole.measures().items():
        assert getattr(both, name) == pytest.approx(value, nan_ok=True), name
    assert record(A[:50]).light().merge(whole).patterns == 50
