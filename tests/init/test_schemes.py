"""Samples against Keras's and JAX's variance scaling, scipy's distributions, and the defects of others."""

import math
import os

import numpy as np
import pytest
import torch
from torch import nn

import lightning_tricks.init as lt_init
from lightning_tricks.init.fans import Fans

os.environ.setdefault("KERAS_BACKEND", "torch")
MODES = ["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]
DISTRIBUTIONS = ["truncated_normal", "normal", "uniform"]
SHAPE = (160, 90, 3, 3)  # out, in, kernel
PRESETS = {
    "lecun_normal_": (1.0, "fan_in", "truncated_normal"),
    "lecun_uniform_": (1.0, "fan_in", "uniform"),
    "he_normal_": (2.0, "fan_in", "truncated_normal"),
    "he_uniform_": (2.0, "fan_in", "uniform"),
    "glorot_normal_": (1.0, "fan_avg", "truncated_normal"),
    "glorot_uniform_": (1.0, "fan_avg", "uniform"),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ours(mode: str, distribution: str, scale: float = 1.7) -> np.ndarray:
    return lt_init.variance_scaling_(torch.empty(SHAPE), scale, mode, distribution, generator=seeded()).numpy().ravel()


def assert_same_distribution(a: np.ndarray, b: np.ndarray) -> None:
    stats = pytest.importorskip("scipy.stats", reason="the KS test is scipy's")
    n = len(a)
    assert stats.ks_2samp(a, b).pvalue > 1e-3
    assert abs(a.mean() - b.mean()) < 5 * b.std() * math.sqrt(2 / n)
    assert a.std() == pytest.approx(b.std(), rel=5 / math.sqrt(n))
    # Not the maximum: on its torch backend Keras lets the few draws that four trials reject through uncut.
    assert np.quantile(np.abs(a), 0.9995) == pytest.approx(np.quantile(np.abs(b), 0.9995), rel=0.05)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("mode", MODES)
def test_samples_are_those_of_jax(mode, distribution):
    jax = pytest.importorskip("jax", reason="jax is the independent truth here")
    initializer = jax.nn.initializers.variance_scaling(1.7, mode, distribution, in_axis=1, out_axis=0)
    theirs = np.asarray(initializer(jax.random.key(0), SHAPE)).ravel()
    assert_same_distribution(ours(mode, distribution), theirs)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("mode", MODES[:3])
def test_samples_are_those_of_keras(mode, distribution):
    keras = pytest.importorskip("keras", reason="keras is the independent truth here")
    name = "untruncated_normal" if distribution == "normal" else distribution
    initializer = keras.initializers.VarianceScaling(1.7, mode, name, seed=0)
    theirs = initializer((3, 3, SHAPE[1], SHAPE[0]))
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else np.asarray(theirs)
    theirs = theirs.ravel()
    assert_same_distribution(ours(mode, distribution), theirs)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_variance_scaling(name):
    scale, mode, distribution = PRESETS[name]
    preset = getattr(lt_init, name)(torch.empty(40, 30, 3), generator=seeded())
    general = lt_init.variance_scaling_(torch.empty(40, 30, 3), scale, mode, distribution, generator=seeded())
    assert torch.equal(preset, general)


def test_truncation_is_at_two_sigma_and_the_variance_is_right():
    stats = pytest.importorskip("scipy.stats", reason="scipy has the distribution function")
    std = 0.01
    sample = lt_init.variance_scaling_(torch.empty(2000, 1000), fan=1 / std**2, generator=seeded()).double()
    parent = std / stats.truncnorm(-2, 2).std()
    assert float(sample.abs().max()) <= 2 * parent
    assert float(sample.abs().max()) > 2 * parent * (1 - 1e-4)
    assert float(sample.std()) == pytest.approx(std, rel=5 * 0.6 / math.sqrt(2e6))
    assert stats.kstest(sample.numpy().ravel()[:200_000] / parent, stats.truncnorm(-2, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_every_dtype_stays_inside_and_has_the_variance(dtype, distribution):
    fan = 300.0
    w = lt_init.variance_scaling_(torch.empty(400, 300, dtype=dtype), 1.0, "fan_in", distribution, generator=seeded())
    assert w.dtype == dtype
    assert float(w.double().var()) == pytest.approx(1 / fan, rel=0.02)
    bound = {"truncated_normal": 2 / 0.8796256610342398, "uniform": math.sqrt(3), "normal": math.inf}[distribution]
    assert float(w.double().abs().max()) <= bound / math.sqrt(fan)


def test_memory_layouts_and_views_are_filled_where_they_lie():
    whole = torch.zeros(64, 64)
    view = whole[::2, ::2]
    assert lt_init.lecun_normal_(view, generator=seeded()) is view
    assert bool((view != 0).all())
    assert float(whole[1::2].abs().max()) == 0.0
    conv = torch.empty(32, 32, 3, 3).to(memory_format=torch.channels_last)
    assert lt_init.he_normal_(conv).is_contiguous(memory_format=torch.channels_last)


def test_a_generator_decides_and_the_global_state_is_untouched():
    before = torch.get_rng_state()
    first, second = (lt_init.lecun_normal_(torch.empty(9, 9), generator=seeded(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_parameters_get_no_gradient_graph():
    weight = nn.Linear(4, 4).weight
    for initialise in (lt_init.lecun_normal_, lt_init.orthogonal_):
        assert initialise(weight) is weight
        assert weight.grad_fn is None
        assert weight.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (16, 4, 2, 2), (8, 8)])
def test_orthogonal(shape, dtype):
    w = lt_init.orthogonal_(torch.empty(shape, dtype=dtype), gain=2.0, generator=seeded()).double().flatten(1)
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    tolerance = {torch.float16: 5e-3, torch.bfloat16: 4e-2, torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
    assert torch.allclose(gram, 4.0 * torch.eye(len(gram), dtype=torch.float64), atol=tolerance)


def test_orthogonal_is_uniform_over_rotations():
    """Haar measure: the trace of a uniform orthogonal n x n matrix has mean 0 and variance 1."""
    generator = seeded()
    traces = torch.stack([lt_init.orthogonal_(torch.empty(6, 6), generator=generator).trace() for _ in range(2000)])
    assert abs(float(traces.mean())) < 5 / math.sqrt(2000)
    assert float(traces.var()) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_delta_orthogonal_convolutions_keep_every_length(dimensions):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1](6, 10, 3, padding=1, padding_mode="circular", bias=False)
    lt_init.delta_orthogonal_(conv.weight, gain=3.0)
    x = torch.randn(4, 6, *[8] * dimensions)
    assert torch.allclose(conv(x).flatten(1).norm(dim=1), 3.0 * x.flatten(1).norm(dim=1), rtol=1e-5)


def test_32_selu_layers_of_width_256():
    """Where each start leads: LeCun stays, gain 3/4 and torch's default die, an uncorrected cut fades, He explodes."""

    def end(start):
        generator, ends = seeded(), []
        for _ in range(3):
            x = torch.randn(512, 256, generator=generator)
            for _ in range(32):
                x = torch.selu(x @ start(torch.empty(256, 256), generator).T)
            ends.append(float(x.var()))
        return float(np.mean(ends))

    def uncorrected(w, generator):
        return nn.init.trunc_normal_(w, 0, 1 / 16, -2 / 16, 2 / 16, generator=generator)

    assert end(lambda w, g: lt_init.lecun_normal_(w, generator=g)) == pytest.approx(0.999, abs=0.08)
    assert end(lambda w, g: w.normal_(0, 0.75 / 16, generator=g)) == pytest.approx(0.045, abs=0.012)
    assert end(uncorrected) == pytest.approx(0.36, abs=0.06)
    assert end(lambda w, g: lt_init.he_normal_(w, generator=g)) == pytest.approx(222, rel=0.2)
    assert end(lambda w, g: w.uniform_(-1 / 16, 1 / 16, generator=g)) == pytest.approx(1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mode": "fan_both"}, "unknown mode 'fan_both'; known are fan_in"),
        ({"distribution": "gauss"}, "unknown distribution 'gauss'; known are truncated_normal"),
        ({"scale": 0.0}, "scale has to be positive and finite, not 0.0"),
        ({"scale": math.inf}, "scale has to be positive"),
        ({"fan": 0}, "fan has to be positive and finite, not 0"),
        ({"fan": -3.0}, "fan has to be positive"),
        ({"fan": Fans(0, 4)}, "fan has to be positive"),
    ],
)
def test_wrong_arguments_leave_the_tensor_alone(kwargs, message):
    tensor = torch.ones(3, 3)
    with pytest.raises(ValueError, match=message):
        lt_init.variance_scaling_(tensor, **kwargs)
    assert torch.equal(tensor, torch.ones(3, 3))


def test_wrong_tensors():
    with pytest.raises(ValueError, match=r"shape \(5,\) has no fan_in and fan_out: at least 2 dimensions"):
        lt_init.lecun_normal_(torch.empty(5))
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        lt_init.orthogonal_(torch.empty(5))
    with pytest.raises(ValueError, match=r"3 to 5 dimensions, not shape \(4, 4\)"):
        lt_init.delta_orthogonal_(torch.empty(4, 4))
    with pytest.raises(ValueError, match="at least as many outputs as inputs, not 4 < 8"):
        lt_init.delta_orthogonal_(torch.empty(4, 8, 3))
    with pytest.raises(ValueError, match="meta device holds no numbers"):
        lt_init.lecun_normal_(torch.empty(4, 8, device="meta"))
    with pytest.raises(ValueError, match="lazy parameter has no shape"):
        lt_init.lecun_normal_(nn.LazyLinear(4).weight)
    with pytest.raises(TypeError, match=r"floating point, not torch\.int64"):
        lt_init.lecun_normal_(torch.zeros(4, 8, dtype=torch.int64))


@pytest.mark.parametrize("name", [*PRESETS, "variance_scaling_"])
def test_a_layer_in_place_of_its_weight(name):
    layer = nn.Linear(3, 4)
    before = layer.weight.detach().clone()
    with pytest.raises(TypeError, match=r"tensor has to be a weight, not the module Linear: pass layer\.weight"):
        getattr(lt_init, name)(layer)
    assert torch.equal(layer.weight, before)
    with pytest.raises(TypeError, match=r"tensor has to be a torch\.Tensor, .* not list"):
        getattr(lt_init, name)([[1.0]])


def test_empty_tensors_are_returned():
    assert lt_init.lecun_normal_(torch.empty(0, 5)).shape == (0, 5)
    assert lt_init.orthogonal_(torch.empty(0, 5)).shape == (0, 5)
