"""Batch renormalisation against Keras's, which nobody here wrote."""

import math
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest
import torch
from torch import nn

from lightning_tricks.nn.batch_norm import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d, batch_renorm

AT_ONCE = {"warmup_steps": 0, "r_max_step": 0, "d_max_step": 0}


@pytest.mark.parametrize("limits", [(1.5, 0.5), (3.0, 5.0), (math.inf, math.inf)])
@pytest.mark.parametrize("spatial", [(), (3, 4)], ids=["table", "image"])
def test_twenty_steps_of_keras(limits, spatial):
    keras = pytest.importorskip("keras", reason="Keras is the oracle and is not installed")
    r_max, d_max = limits
    channels = 5
    oracle = keras.layers.BatchNormalization(
        axis=1,
        momentum=0.9,
        renorm_momentum=0.9,
        epsilon=1e-3,
        renorm=True,
        renorm_clipping={"rmin": 1 / r_max, "rmax": r_max, "dmax": d_max},
    )
    oracle.build((None, channels, *spatial))
    cls = BatchRenorm2d if spatial else BatchRenorm1d
    layer = cls(channels, eps=1e-3, momentum=0.1, r_max=r_max, d_max=d_max, **AT_ONCE)
    random = np.random.default_rng(0)
    weight, bias = random.uniform(0.5, 1.5, channels), random.normal(size=channels)
    oracle.gamma.assign(weight)
    oracle.beta.assign(bias)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
        layer.running_var.fill_(1 - layer.eps)  # Keras begins with a standard deviation of 1, eps included

    def host(value):
        return torch.as_tensor(value).detach().numpy()

    # Keras takes the variance as E[x^2] - E[x]^2, which costs it digits at large means: hence means under 1 here.
    for step in range(20):
        x = (random.normal(size=(6, channels, *spatial)) * (1 + step % 3) + 0.2 * (step % 5)).astype("float32")
        output, expected = layer(torch.tensor(x)).detach().numpy(), host(oracle(x, training=True))
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
        np.testing.assert_allclose(layer.running_mean.numpy(), host(oracle.moving_mean.value), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(layer.running_var.numpy(), host(oracle.moving_variance.value), rtol=1e-6)
        std = (layer.running_var + layer.eps).sqrt()
        np.testing.assert_allclose(std.numpy(), host(oracle.renorm_stddev.value), rtol=1e-6)
    x = random.normal(size=(4, channels, *spatial)).astype("float32")
    np.testing.assert_allclose(layer.eval()(torch.tensor(x)).detach().numpy(), host(oracle(x)), rtol=1e-6, atol=1e-6)
    assert layer.num_batches_tracked == 20


def naive(x, mean, var, weight, bias, r_max, d_max, eps):
    """The formula of Algorithm 1, term by term, with the corrections detached."""
    axes = [0, *range(2, x.dim())]
    shape = (1, -1) + (1,) * (x.dim() - 2)
    mu = x.mean(axes)
    sigma = (x.var(axes, unbiased=False) + eps).sqrt()
    running = (var + eps).sqrt()
    r = (sigma / running).clamp(1 / r_max, r_max).detach()
    d = ((mu - mean) / running).clamp(-d_max, d_max).detach()
    normalized = (x - mu.view(shape)) / sigma.view(shape) * r.view(shape) + d.view(shape)
    return normalized * weight.view(shape) + bias.view(shape)


@pytest.mark.parametrize("shape", [(7, 3), (5, 3, 4), (4, 3, 2, 5), (2, 3, 2, 2, 3)], ids=str)
def test_values_and_gradients_of_the_formula(shape):
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, weight, bias = (t.requires_grad_() for t in (draw(*shape) * 2 + 1, draw(3) + 2, draw(3)))
    mean, var = draw(3), draw(3).square() + 0.1
    upstream = draw(*shape)
    arguments = (mean, var, weight, bias, 1.3, 0.4, 1e-5)
    got = batch_renorm(x, *arguments)[0]
    expected = naive(x, *arguments)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    got = torch.autograd.grad(got, (x, weight, bias), upstream)
    for a, b in zip(got, torch.autograd.grad(expected, (x, weight, bias), upstream), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_gradcheck_where_the_corrections_are_constant():
    # At clipped limits r and d do not depend on the input, so the numerical derivative is the defined one.
    x = (torch.randn(6, 3, dtype=torch.float64) * 5 + 40).requires_grad_()
    weight, bias = (torch.rand(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    mean, var = torch.zeros(3, dtype=torch.float64), torch.full((3,), 0.01, dtype=torch.float64)

    def run(x, weight, bias):
        return batch_renorm(x, mean, var, weight, bias, 2.0, 3.0)[0]

    assert torch.autograd.gradcheck(run, (x, weight, bias))


def test_before_the_warm_up_ends_it_is_batch_norm():
    layer, plain = BatchRenorm2d(4, warmup_steps=10), nn.BatchNorm2d(4)
    x = torch.randn(3, 4, 5, 5) * 2 + 1
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-6, atol=1e-6)


def test_the_limits_rise_linearly_and_stop():
    layer = BatchRenorm1d(2, r_max=3.0, d_max=5.0, warmup_steps=5_000, r_max_step=40_000, d_max_step=25_000)
    expected = {0: (1, 0), 5_000: (1, 0), 15_000: (1 + 2 * 10 / 35, 2.5), 25_000: (1 + 2 * 20 / 35, 5)}
    expected |= {40_000: (3, 5), 10_000_000: (3, 5)}
    for step, limits in expected.items():
        layer.num_batches_tracked.fill_(step)
        torch.testing.assert_close(torch.stack(layer.limits()), torch.tensor([float(v) for v in limits]))


def test_accumulated_micro_batches_do_not_hurry_the_schedule():
    layer = BatchRenorm1d(2, warmup_steps=10, r_max_step=20, d_max_step=20, accumulation_steps=4)
    layer.num_batches_tracked.fill_(60)
    assert [float(v) for v in layer.limits()] == [2.0, 2.5]


def test_the_running_statistics_converge_to_the_population():
    layer = BatchRenorm3d(2, momentum=0.02, **AT_ONCE)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        layer(torch.randn(4, 2, 3, 3, 3, generator=generator) * 2 + 7)
    torch.testing.assert_close(layer.running_mean, torch.full((2,), 7.0), rtol=0.02, atol=0)
    torch.testing.assert_close(layer.running_var, torch.full((2,), 4.0), rtol=0.05, atol=0)


def test_a_layer_whose_statistics_are_frozen_still_corrects_towards_them():
    layer = BatchRenorm1d(3, r_max=math.inf, d_max=math.inf, **AT_ONCE)
    layer.running_mean.fill_(2.0)
    layer.running_var.fill_(9.0)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    layer.track_running_stats = False
    x = torch.randn(8, 3)
    torch.testing.assert_close(layer(x), (x - 2) / 3, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dict(layer.state_dict()), before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BatchRenorm1d(4, track_running_stats=False), "cannot be without them"),
        (lambda: BatchRenorm1d(4, r_max=0.5), "r_max must be at least 1, got 0.5"),
        (lambda: BatchRenorm1d(4, d_max=-1.0), "d_max must not be negative"),
        (lambda: BatchRenorm1d(4, warmup_steps=10, r_max_step=5), "r_max_step"),
        (lambda: BatchRenorm1d(4, d_max=math.inf), "infinite d_max"),
        (lambda: BatchRenorm1d(4)(torch.randn(1, 4)), "BatchRenorm1d.4.* fewer than 2 values"),
        (lambda: BatchRenorm2d(4)(torch.randn(2, 5, 3, 3)), "got 5 channels .* expected 4"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
