import numpy as np
import pytest
import torch

from lightning_tricks.stats import JointMoments, MomentSums


@pytest.mark.parametrize("dim", [0, 1])
def test_moments_are_numpys(dim):
    x = np.random.default_rng(0).normal(3.0, 2.0, (50, 4))
    m = MomentSums.of(torch.from_numpy(x if dim == 0 else x.T), dim)
    np.testing.assert_allclose(m.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(m.variance, x.var(0), rtol=1e-12)
    np.testing.assert_allclose(m.std, x.std(0), rtol=1e-12)
    assert m.count == 50


def test_float32_is_right_at_a_mean_of_10000_standard_deviations():
    x = torch.randn(4096, 8, generator=torch.Generator().manual_seed(0)) + 1e4
    exact = x.double().numpy()
    whole = MomentSums.of(x, 0)
    merged = whole
    for begin in (0, 100, 3000):
        end = {0: 100, 100: 3000, 3000: 4096}[begin]
        part = MomentSums.of(x[begin:end], 0)
        merged = part if begin == 0 else merged.merge(part)
    for m in (whole, merged):
        np.testing.assert_allclose(m.mean.numpy(), exact.mean(0), rtol=1e-6)
        np.testing.assert_allclose(m.std.numpy(), exact.std(0), rtol=1e-4)
    joint = JointMoments.of(x, torch.relu(x), 0)
    assert joint.linearity == pytest.approx(np.ones(8), abs=1e-6)


def test_mean_energy_is_the_share_of_the_mean():
    x = np.random.default_rng(1).normal(0.7, 1.3, (200, 6))
    expected = np.sum(x.mean(0) ** 2) / np.mean(np.sum(x**2, axis=1))
    m = MomentSums.of(torch.from_numpy(x), 0)
    assert MomentSums(m.count, m.mean.numpy(), m.m2.numpy()).mean_energy == pytest.approx(expected, rel=1e-12)
    nothing = MomentSums(3, np.zeros(2), np.zeros(2))
    assert np.isnan(nothing.mean_energy)


def test_mean_energy_behind_a_relu_of_a_centred_gaussian_is_one_over_pi():
    x = torch.relu(torch.randn(200_000, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    m = MomentSums.of(x, 0)
    assert MomentSums(m.count, m.mean.numpy(), m.m2.numpy()).mean_energy == pytest.approx(1 / np.pi, abs=2e-3)


def test_linearity_is_the_squared_correlation():
    rng = np.random.default_rng(3)
    a, g = rng.normal(size=(300, 5)), rng.normal(size=(300, 5))
    g[:, 0] = 2 * a[:, 0] - 1
    g[:, 1] = 4.0  # does not vary
    joint = JointMoments.of(torch.from_numpy(a), torch.from_numpy(g), 0)
    linearity = joint.linearity
    assert linearity[0] == pytest.approx(1.0, abs=1e-12)
    assert np.isnan(linearity[1])
    for unit in (2, 3, 4):
        assert linearity[unit] == pytest.approx(np.corrcoef(a[:, unit], g[:, unit])[0, 1] ** 2, rel=1e-9)
    np.testing.assert_allclose(joint.preactivation.variance, a.var(0), rtol=1e-12)
    np.testing.assert_allclose(joint.activation.mean, g.mean(0), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "parameters", "mean", "std", "value"),
    [
        ("relu", {}, 0.0, 1.0, 0.7335),
        ("relu", {}, 2.0, 1.0, 0.995),
        ("tanh", {}, 0.0, 0.1, 0.9999),
        ("tanh", {}, 0.0, 1.0, 0.930),
        ("sigmoid", {}, 0.0, 1.0, 0.984),
        ("sigmoid", {}, 0.0, 2.0, 0.930),
        ("selu", {}, 0.0, 1.0, 0.971),
        ("gelu", {}, 0.0, 1.0, 0.723),
    ],
)
def test_linearity_of_gaussian_input_against_quadrature_and_the_published_values(name, parameters, mean, std, value):
    from scipy import integrate, special, stats

    functions = {
        "relu": lambda a: max(a, 0.0),
        "tanh": np.tanh,
        "sigmoid": special.expit,
        "selu": lambda a: 1.0507009873554805 * (a if a > 0 else 1.6732632423543772 * np.expm1(a)),
        "gelu": lambda a: a * stats.norm.cdf(a),
    }
    g = functions[name]

    def expectation(f):
        def at(z):
            return f(mean + std * z) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)

        kink = -mean / std
        return integrate.quad(at, -12, kink, epsabs=1e-12)[0] + integrate.quad(at, kink, 12, epsabs=1e-12)[0]

    eg, eg2, eag = expectation(g), expectation(lambda a: g(a) ** 2), expectation(lambda a: (a - mean) * g(a))
    closed = eag**2 / (std**2 * (eg2 - eg**2))
    assert closed == pytest.approx(value, abs=6e-4)

    draws = mean + std * torch.randn(400_000, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    from lightning_tricks.activations import by_name

    measured = JointMoments.of(draws, by_name(name).bind(**parameters)(draws), 0).linearity
    assert measured == pytest.approx(closed, abs=2e-3 if closed < 0.99 else 2e-4)


def test_joint_moments_take_over_what_is_known_of_the_input():
    a = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    known = MomentSums.of(a, 0)
    joint, again = JointMoments.of(a, a.tanh(), 0, known), JointMoments.of(a, a.tanh(), 0)
    assert joint.mean_a is known.mean
    assert joint.m2_a is known.m2
    assert all(torch.equal(one, other) for one, other in zip(joint.arrays(), again.arrays(), strict=True))
