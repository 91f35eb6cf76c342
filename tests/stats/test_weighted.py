import math

import numpy as np
import torch

from lightning_tricks.stats import MomentSums, Sample, WeightedSums


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
