"""Moments, gains, slopes and fixed points against scipy's quad and the published numbers."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import lightning_tricks.init as lt_init
from lightning_tricks.activations import by_name

scipy_integrate = pytest.importorskip("scipy.integrate", reason="scipy is the independent truth here")

# quad is asked for more than rounding allows, and says so.
pytestmark = pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")

# Each written out anew in plain Python, with the places where it is not smooth.
SELU_L, SELU_A = 1.0507009873554805, 1.6732632423543772
ACTIVATIONS = {
    "relu": (lambda a: max(a, 0.0), [0]),
    "relu6": (lambda a: min(max(a, 0.0), 6.0), [0, 6]),
    "leaky_relu": (lambda a: a if a > 0 else 0.01 * a, [0]),
    "elu": (lambda a: a if a > 0 else math.expm1(a), [0]),
    "selu": (lambda a: SELU_L * (a if a > 0 else SELU_A * math.expm1(a)), [0]),
    "celu": (lambda a: a if a > 0 else math.expm1(a), [0]),
    "tanh": (math.tanh, []),
    "sigmoid": (lambda a: 1 / (1 + math.exp(-a)), []),
    "hardtanh": (lambda a: min(max(a, -1.0), 1.0), [-1, 1]),
    "hardsigmoid": (lambda a: min(max(a / 6 + 0.5, 0.0), 1.0), [-3, 3]),
    "hardswish": (lambda a: a * min(max(a + 3, 0.0), 6.0) / 6, [-3, 3]),
    "gelu": (lambda a: 0.5 * a * math.erfc(-a / math.sqrt(2)), []),
    "silu": (lambda a: a / (1 + math.exp(-a)), []),
    "mish": (lambda a: a * math.tanh(math.log1p(math.exp(a))), []),
    "softplus": (lambda a: a if a > 20 else math.log1p(math.exp(a)), [20]),
    "softsign": (lambda a: a / (1 + abs(a)), [0]),
    "logsigmoid": (lambda a: min(a, 0.0) - math.log1p(math.exp(-abs(a))), []),
    "tanhshrink": (lambda a: a - math.tanh(a), []),
    "softshrink": (lambda a: math.copysign(max(abs(a) - 0.5, 0.0), a), [-0.5, 0.5]),
    "hardshrink": (lambda a: a if abs(a) > 0.5 else 0.0, [-0.5, 0.5]),
}


def by_quad(function, kinks, mean, variance):
    """E g and E g^2 by QUADPACK, piece by piece between the kinks and every standard deviation."""
    std = math.sqrt(variance)
    edges = sorted({mean + std * z for z in range(-12, 13)} | {k for k in kinks if abs(k - mean) < 12 * std})

    def expect(power):
        def integrand(a):
            return function(a) ** power * math.exp(-((a - mean) ** 2) / (2 * variance))

        pieces = [
            scipy_integrate.quad(integrand, low, high, epsabs=1e-15, epsrel=1e-14)[0]
            for low, high in itertools.pairwise(edges)
        ]
        return math.fsum(pieces) / (std * math.sqrt(2 * math.pi))

    return expect(1), expect(2)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_moments_agree_with_quad(name):
    for mean, variance in ((0.0, 1.0), (0.3, 1.7)):
        first, second = by_quad(*ACTIVATIONS[name], mean, variance)
        ours = lt_init.moments(name, mean, variance)
        assert ours.mean == pytest.approx(first, abs=1e-12)
        assert ours.second_moment == pytest.approx(second, abs=1e-12)
        assert ours.variance == pytest.approx(second - first**2, abs=1e-12)


@pytest.mark.parametrize("variance", [1e-4, 1e4])
def test_moments_at_other_scales(variance):
    """Kinks far inside or far outside of what the distribution reaches."""
    for name in ("relu6", "gelu", "hardtanh"):
        first, second = by_quad(*ACTIVATIONS[name], 0.0, variance)
        ours = lt_init.moments(name, 0.0, variance)
        assert ours.mean == pytest.approx(first, rel=1e-9, abs=1e-13)
        assert ours.second_moment == pytest.approx(second, rel=1e-9)


def test_kinks_of_a_users_function_are_found_or_given():
    def steps(a):
        return torch.floor(a.clamp(-3.25, 3.25) * 1.7) + (a > 0.123456).to(a.dtype)

    cuts = [k / 1.7 for k in range(-5, 6)] + [0.123456, -3.25, 3.25]
    first, second = by_quad(lambda a: float(steps(torch.tensor(a, dtype=torch.float64))), cuts, 0.1, 2.0)
    for kinks in ((), cuts):
        ours = lt_init.moments(steps, 0.1, 2.0, kinks=kinks)
        assert ours.mean == pytest.approx(first, abs=1e-12)
        assert ours.second_moment == pytest.approx(second, abs=1e-12)


def test_one_function_under_every_name_it_may_have():
    names = ["leaky_relu", torch.nn.functional.leaky_relu, nn.LeakyReLU(), by_name("leaky_relu").bind()]
    results = [lt_init.moments(activation, 0.2, 1.3) for activation in names]
    results.append(lt_init.moments(lambda a: torch.where(a > 0, a, 0.01 * a), 0.2, 1.3))
    results.append(lt_init.moments(nn.PReLU(5, init=0.01), 0.2, 1.3))
    for result in results[1:4]:
        assert result == results[0]
    assert results[4] == pytest.approx(results[0], abs=1e-14)
    assert results[5] == pytest.approx(results[0], abs=1e-9)  # 0.01 in float32


def test_a_module_is_not_changed_by_asking():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, a):
            return self.scale * torch.tanh(a)

    module = Scaled()
    assert lt_init.moments(module).variance == pytest.approx(4 * lt_init.moments("tanh").variance, rel=1e-12)
    assert module.training
    assert module.scale.dtype == torch.float32
    assert module.scale.grad is None


def test_zero_variance_is_the_function_itself():
    mean, variance = lt_init.moments("tanh", 0.5, 0.0)
    assert mean == pytest.approx(math.tanh(0.5), rel=1e-15)  # the last digit is the processor's
    assert variance == 0.0


def test_a_random_function_is_refused():
    with pytest.raises(ValueError, match="not smooth in pieces"):
        lt_init.moments(torch.rand_like)
    with pytest.raises(TypeError, match="not elementwise"):
        lt_init.moments(torch.sum)
    with pytest.raises(TypeError, match="name, a module or a function"):
        lt_init.moments(3.0)
    with pytest.raises(ValueError, match="unknown activation 'rleu'"):
        lt_init.moments("rleu")
    with pytest.raises(ValueError, match="variance not negative"):
        lt_init.moments("relu", 0.0, -1.0)
    prelu = nn.PReLU(2)
    prelu.weight.data[0] = 0.5
    with pytest.raises(ValueError, match="different slopes"):
        lt_init.moments(prelu)


GAINS = {
    "relu": math.sqrt(2),
    "selu": 1.0,
    "elu": 1.27796,
    "gelu": 1.46801,
    "silu": 1.55876,
    "mish": 1.45149,
    "hardswish": 1.56718,
    "softplus": 1.08312,
    "linear": 1.0,
    "leaky_relu": math.sqrt(2 / (1 + 0.01**2)),
}


@pytest.mark.parametrize("name", GAINS)
def test_gains(name):
    assert lt_init.gain(name) == pytest.approx(GAINS[name], abs=5e-6)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softsign", "hardtanh"])
def test_bounded_activations_have_no_gain_and_are_told_of_the_one_step_gain(name):
    with pytest.raises(ValueError, match=rf"no gain .* {name} at 1.*one_step_gain\('{name}'\)"):
        lt_init.gain(name)
    assert lt_init.one_step_gain(name) ** 2 * lt_init.moments(name).second_moment == pytest.approx(1, abs=1e-12)


def test_a_function_that_is_too_large_for_any_gain():
    with pytest.raises(ValueError, match="even for tiny weights"):
        lt_init.gain(lambda a: 2.0 + a * a)
    with pytest.raises(ValueError, match="zero on every input"):
        lt_init.one_step_gain(torch.zeros_like)


SLOPES = {"gelu": 1.0836, "silu": 1.1468, "mish": 1.0516, "hardswish": 1.2017, "selu": 0.7826, "elu": 0.8981}


@pytest.mark.parametrize("name", SLOPES)
def test_slopes_and_verdicts(name):
    result = lt_init.stability(name)
    assert result.slope == pytest.approx(SLOPES[name], abs=6e-5)
    assert result.verdict == ("UNSTABLE" if SLOPES[name] > 1 else "STABLE")


@pytest.mark.parametrize("name", ["gelu", "selu", "hardshrink"])
def test_the_slope_is_the_derivative_of_the_map(name):
    factor = lt_init.gain(name)

    def q(value):
        return lt_init.moments(name, 0.0, factor**2 * value).second_moment

    numeric = (q(1 + 1e-4) - q(1 - 1e-4)) / 2e-4
    assert lt_init.stability(name).slope == pytest.approx(numeric, abs=1e-6)


def test_homogeneous_activations_are_marginal():
    for name in ("relu", "linear", "leaky_relu"):
        assert lt_init.stability(name).verdict == "MARGINAL"
        assert lt_init.fixed_points(name, lt_init.gain(name)) == []


def test_gradients_grow_under_selu():
    chi = lt_init.stability("selu").chi
    assert chi == pytest.approx(1.0716, abs=5e-5)
    assert math.sqrt(chi) == pytest.approx(1.035, abs=5e-4)
    assert math.sqrt(chi) ** 32 == pytest.approx(3, abs=0.05)
    assert lt_init.stability("relu").chi == pytest.approx(1.0, abs=1e-12)


def test_stability_at_a_given_gain():
    result = lt_init.stability("tanh", gain=5 / 3)
    assert result.second_moment == pytest.approx(0.424, abs=5e-4)
    assert result.verdict == "STABLE"
    with pytest.raises(ValueError, match="has no fixed point"):
        lt_init.stability("relu", gain=1.0)


def test_fixed_points_are_fixed():
    points = lt_init.fixed_points("sigmoid", 1.0, bias_variance=0.5)
    assert len(points) == 1
    q = points[0].second_moment
    assert lt_init.moments("sigmoid", 0.0, q + 0.5).second_moment == pytest.approx(q, rel=1e-12)
    (selu,) = lt_init.fixed_points("selu")
    assert selu.second_moment == pytest.approx(1.0, abs=1e-12)


def test_the_one_step_gain_of_gelu_explodes_with_depth():
    """q = 111 after 32 layers by theory; a net of width 1024 agrees, in the middle of its draws."""
    factor, q = lt_init.one_step_gain("gelu"), 1.0
    for _ in range(32):
        q = lt_init.moments("gelu", 0.0, factor**2 * q).second_moment
    assert q == pytest.approx(111, abs=0.5)
    generator = torch.Generator().manual_seed(0)
    ends = []
    for _ in range(5):
        x = torch.randn(64, 512, generator=generator)
        for _ in range(32):
            w = torch.randn(512, 512, generator=generator) * (factor / math.sqrt(512))
            x = torch.nn.functional.gelu(x @ w.T)
        ends.append(float(x.square().mean()))
    assert 40 < np.median(ends) < 250
