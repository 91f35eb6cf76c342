import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightning_tricks.activations import by_function, by_name
from lightning_tricks.stats import ActivationSums, Sample
from lightning_tricks.stats.activations import HISTOGRAM_EDGES

NAMES = sorted({entry.name for entry in by_function.values()} - {"prelu"})
X = torch.randn(500, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4


def slopes_by_autograd(g, x):
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(g(leaf).sum(), leaf)
    return slope


def sums_of(g, x):
    return ActivationSums.of(g, Sample(x, 0), Sample(g(x), 0), g(x), g.derivative(x, g(x)))


@pytest.mark.parametrize("name", NAMES)
def test_measures_against_autograd(name):
    g = by_name(name).bind()
    sums = sums_of(g, X)
    slope = slopes_by_autograd(g, X)
    # torch rounds the sixth in its derivative of hardsigmoid to float32
    assert sums.transmission == pytest.approx(slope.square().mean().item(), rel=1e-7)
    if g.activation.hard_zero:
        np.testing.assert_allclose(sums.activity, (slope != 0).double().mean(0))
    else:
        assert sums.activity is None
    grid = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    steep = (slopes_by_autograd(g, grid).abs() >= 0.05 * slopes_by_autograd(g, grid).abs().max()).nonzero()
    low, high = grid[steep[0]], grid[steep[-1]]
    low = low if steep[0] > 0 else torch.tensor(-math.inf)
    high = high if steep[-1] < len(grid) - 1 else torch.tensor(math.inf)
    flat = ((low - 2e-4 > X) | (high + 2e-4 < X)).double().mean(0)
    if sums.saturation is None:
        assert flat.max() == 0
    else:
        np.testing.assert_allclose(sums.saturation, flat, atol=2e-3)


def test_prelus_learned_slopes_are_not_called_flat():
    weight = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    g = by_name("prelu").bind(weight)
    sums = sums_of(g, X)
    assert sums.saturation is None
    assert sums.transmission == pytest.approx(torch.where(X > 0, 1.0, weight).square().mean().item(), rel=1e-12)


def test_a_unit_that_is_always_zero_is_inactive_and_saturated():
    g = by_name("relu").bind()
    sums = sums_of(g, torch.zeros(10, 2, dtype=torch.float64))
    np.testing.assert_array_equal(sums.activity, [0, 0])
    np.testing.assert_array_equal(sums.saturation, [1, 1])


def test_histogram_counts_what_numpy_counts_when_nothing_is_left_out():
    x = X[:300]  # 1200 numbers: all are taken
    below = sums_of(by_name("tanh").bind(), x).below.numpy()
    counts = np.diff(below, prepend=0.0)
    expected = np.histogram(x.numpy(), [-np.inf, *HISTOGRAM_EDGES, np.inf])[0]
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("dim", [0, 1])
def test_the_centred_histogram_is_of_each_unit_less_its_mean(dim):
    x = X[:300] + 3.0 * torch.arange(X.shape[1], dtype=X.dtype)
    sampled = Sample(x if dim == 0 else x.T.contiguous(), dim)
    g = by_name("tanh").bind()
    output = Sample(torch.tanh(sampled.values), dim)
    sums = ActivationSums.of(g, sampled, output, output.values, 1 - output.values**2)
    expected = np.histogram((x - x.mean(0)).numpy(), [-np.inf, *HISTOGRAM_EDGES, np.inf])[0]
    np.testing.assert_array_equal(np.diff(sums.below_centred.numpy(), prepend=0.0), expected)


class OnAnotherDevice(torch.Tensor):
    """Counted as where sorting is no gain."""


@pytest.mark.parametrize("kind", [torch.Tensor, OnAnotherDevice])
@pytest.mark.parametrize("dim", [0, 1])
def test_the_histogram_counts_what_lies_on_an_edge_below_it_and_nan_nowhere(dim, kind):
    x = torch.arange(-24, 24).reshape(12, 4) / 4.0
    x[0, 0], x[1, 1], x[2, 2] = math.nan, math.inf, -math.inf
    x = (x if dim == 0 else x.T).as_subclass(kind)
    g = by_name("tanh").bind()
    sums = ActivationSums.of(g, Sample(x, dim), Sample(g(x), dim), g(x), g.derivative(x))
    edges = [*HISTOGRAM_EDGES, math.inf]
    centred = x - x.mean(dim, keepdim=True)
    assert sums.below.tolist() == [(x <= edge).sum().item() for edge in edges]
    assert sums.below_centred.tolist() == [(centred <= edge).sum().item() for edge in edges]


def test_histogram_of_a_large_layer_is_a_fair_sample_of_all_units():
    x = torch.randn(4096, 64, generator=torch.Generator().manual_seed(1)) + torch.arange(64) / 16
    below = sums_of(by_name("tanh").bind(), x).below.double().numpy()
    assert 1000 < below[-1] <= 2048
    exact = np.array([(x <= edge).double().mean() for edge in HISTOGRAM_EDGES])
    np.testing.assert_allclose(below[:-1] / below[-1], exact, atol=0.05)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_total_shows_what_is_not_finite(value):
    x = X.clone()
    x[3, 1] = value
    assert not math.isfinite(sums_of(by_name("relu").bind(), x).total)


def test_no_patterns_no_measures():
    sums = sums_of(by_name("relu").bind(), X[:0])
    assert math.isnan(sums.transmission)
    assert sums.joint.count == 0
    assert F.relu(X[:0]).sum() == float(sums.total) == 0
