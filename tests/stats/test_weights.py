import math

import numpy as np
import pytest
import torch

from lightning_tricks.stats import MomentSums, RowVectors, Sample, WeightedSums


def test_moments_of_input_and_output():
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = x[:, :2] * 3 + 1
    sums = WeightedSums.of(Sample(x, 0), Sample(y.T, 1), y)
    np.testing.assert_allclose(sums.input.mean, x.numpy().mean(0))
    np.testing.assert_allclose(sums.output.variance, y.numpy().var(0))
    assert math.isclose(float(sums.total), y.sum().item())
    assert sums.input_total is None


def test_known_moments_are_taken_as_they_are():
    x = torch.ones(4, 2)
    known = MomentSums.of(x, 0)
    assert WeightedSums.of(known, Sample(x, 0), x).input is known


def test_one_nan_anywhere_in_the_whole_tensors_is_in_the_totals():
    whole = torch.zeros(100, 3)
    whole[57, 1] = math.nan
    sums = WeightedSums.of(Sample(whole[::10], 0), Sample(whole[::10], 0), whole, whole)
    assert sums.output.mean.isfinite().all()
    assert math.isnan(sums.total)
    assert math.isnan(sums.input_total)


def row_sums(dw, drift, std):
    vectors = RowVectors.of(dw, drift, std)
    return vectors.with_arrays(iter([array.numpy() for array in vectors.arrays()]))


def test_coherence_by_hand_and_rows_that_did_not_move():
    dw = torch.tensor([[1.0, 1.0, 2.0], [1.0, -1.0, 2.0], [0.0, 0.0, 0.0]])
    sums = row_sums(dw, None, None)
    assert sums.update_coherence == pytest.approx((1 + 2 / 4) / 2)
    assert sums.rows == 3
    assert float(sums.moved) == 2
    assert np.isnan(sums.mean_drift)
    assert np.isnan(row_sums(torch.zeros(2, 3), None, None).update_coherence)


def test_independent_gaussian_entries_have_a_coherence_of_one_over_root_n():
    dw = torch.randn(4000, 400, generator=torch.Generator().manual_seed(0))
    assert row_sums(dw, None, None).update_coherence == pytest.approx(1 / np.sqrt(400), rel=0.03)


def test_drift_is_in_standard_deviations_and_a_unit_that_does_not_vary_has_none():
    dw = torch.ones(3, 2)
    sums = row_sums(dw, torch.tensor([0.3, -0.8, 5.0]), torch.tensor([1.0, 2.0, 0.0]))
    assert sums.mean_drift == pytest.approx(np.sqrt((0.3**2 + 0.4**2) / 2), rel=1e-6)
    none_varies = row_sums(dw, torch.ones(3), torch.zeros(3))
    assert np.isnan(none_varies.mean_drift)
