"""Alpha dropout's moments to five standard errors, its signal, its speed path, and Keras as a peer."""

import copy
import io
import math
import os
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.nn import AlphaDropout, FeatureAlphaDropout, alpha_dropout, matched_p

os.environ.setdefault("KERAS_BACKEND", "torch")
FLOOR = -1.7580993408473766


def exact_moments(p, mean, variance):
    """Fourth moments too, by hand, for Gaussian input: what the standard error of a variance needs."""
    q = 1 - p
    a = math.sqrt(variance / (q * variance + q * p * (FLOOR - mean) ** 2))
    b = mean - a * (q * mean + p * FLOOR)
    centre, drop = a * mean + b - mean, a * FLOOR + b - mean
    kept = a * a * variance
    fourth = q * (3 * kept**2 + 6 * kept * centre**2 + centre**4) + p * drop**4
    return math.sqrt(variance), math.sqrt(fourth - variance**2)


@pytest.mark.parametrize(("p", "mean", "variance"), [(0.05, 0, 1), (0.5, 0, 1), (0.1, 0.3, 1.5), (0.9, -0.2, 0.4)])
def test_moments_at_ten_million_samples(p, mean, variance):
    generator = torch.Generator().manual_seed(0)
    n = 10_000_000
    x = torch.randn(n, generator=generator).mul_(math.sqrt(variance)).add_(mean)
    y = alpha_dropout(x, p, mean=mean, variance=variance, generator=generator)
    spread, spread_of_square = exact_moments(p, mean, variance)
    centred = y.double() - mean
    assert abs(float(centred.mean())) < 5 * spread / math.sqrt(n)
    assert abs(float(centred.square().mean()) - variance) < 5 * spread_of_square / math.sqrt(n)


@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_the_share_of_dropped_units_and_their_value(size):
    torch.manual_seed(0)
    p = 0.3
    y = alpha_dropout(torch.zeros(size), p)
    low, high = float(y.min()), float(y.max())
    assert set(y.unique().tolist()) == {low, high}
    share = float((y == low).double().mean())
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / size) + 1e-5
    a = (1 - p + FLOOR**2 * p * (1 - p)) ** -0.5
    assert high == pytest.approx(-a * p * FLOOR, rel=1e-4)
    assert high - low == pytest.approx(-a * FLOOR, rel=1e-4)


def test_words_of_one_draw_are_independent():
    """Four words share an integer: neither they nor neighbouring integers may be correlated."""
    dropped = (
        alpha_dropout(torch.zeros(1 << 22), 0.25, generator=torch.Generator().manual_seed(1)) < 0
    ).double() - 0.25
    for lag in (1, 2, 3, 4, 8):
        correlation = float((dropped[lag:] * dropped[:-lag]).mean()) / (0.25 * 0.75)
        assert abs(correlation) < 5 / math.sqrt(1 << 22)
    for word in range(4):
        share = float(dropped[word::4].mean())
        assert abs(share) < 5 * math.sqrt(0.25 * 0.75 / (1 << 20))


@pytest.mark.parametrize("p", [0.05, 0.18, 0.5])
def test_how_much_of_the_signal_is_kept(p):
    torch.manual_seed(0)
    x = torch.randn(1_000_000)
    kept = float(torch.corrcoef(torch.stack([x, alpha_dropout(x, p)]))[0, 1]) ** 2
    assert kept == pytest.approx((1 - p) / (1 + 3.0909 * p), abs=5e-3)
    ordinary = float(torch.corrcoef(torch.stack([x, F.dropout(x, p)]))[0, 1]) ** 2
    equal = float(torch.corrcoef(torch.stack([x, alpha_dropout(x, matched_p(p))]))[0, 1]) ** 2
    assert equal == pytest.approx(ordinary, abs=5e-3)


def test_five_percent_is_as_noisy_as_eighteen():
    assert matched_p(0.18) == pytest.approx(0.0509, abs=1e-4)
    assert matched_p(0.0) == 0.0


def test_keras_has_the_same_values_for_kept_and_dropped():
    keras = pytest.importorskip("keras", reason="keras is the independent truth here")
    layer = keras.layers.AlphaDropout(0.2, seed=0)
    theirs = torch.as_tensor(layer(torch.ones(20_000), training=True))
    mine = alpha_dropout(torch.ones(20_000), 0.2, generator=torch.Generator().manual_seed(0))
    assert theirs.unique().tolist() == pytest.approx(mine.unique().tolist(), rel=1e-4)
    assert float(theirs.mean()) == pytest.approx(float(mine.mean()), abs=0.05)


@pytest.mark.parametrize("size", [100, 1 << 18])
def test_the_gradient_is_a_where_kept_and_zero_where_dropped(size):
    torch.manual_seed(0)
    x = torch.randn(size, requires_grad=True)
    y = alpha_dropout(x, 0.25)
    y.sum().backward()
    slope = float(x.grad.max())
    low = float(y.detach().min()) if size > 1000 else None
    assert set(x.grad.unique().tolist()) == {0.0, slope}
    assert slope == pytest.approx((0.75 + FLOOR**2 * 0.25 * 0.75) ** -0.5, rel=1e-4)
    kept = x.grad > 0
    b = float((y - slope * x)[kept].detach().mean())
    assert torch.allclose(y[kept], slope * x[kept] + b, atol=1e-5)
    if low is not None:
        assert bool((y[~kept] == y[~kept][0]).all())


def test_only_a_byte_an_element_is_saved_for_the_backward():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.numel() * t.element_size()) or t, lambda t: t
    ):
        alpha_dropout(torch.randn(1 << 18, requires_grad=True), 0.1)
    assert sum(saved) == 1 << 18


def test_off_in_eval_and_at_zero():
    x = torch.randn(5, 5)
    assert AlphaDropout(0.5).eval()(x) is x
    assert AlphaDropout(0.0)(x) is x
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = AlphaDropout(0.5)(x)
        torch.manual_seed(3)
        assert torch.equal(first, AlphaDropout(0.5)(x))


@pytest.mark.parametrize("shape", [(3, 5), (1001, 333), (7,), (0, 4)])
def test_shapes_and_layouts(shape):
    x = torch.randn(shape)
    assert AlphaDropout(0.3)(x).shape == shape
    images = torch.randn(8, 16, 64, 64).to(memory_format=torch.channels_last)
    assert AlphaDropout(0.3)(images).shape == images.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    torch.manual_seed(0)
    y = AlphaDropout(0.1)(torch.randn(1_000_000, dtype=dtype))
    assert y.dtype == dtype
    assert float(y.double().mean()) == pytest.approx(0, abs=1e-2)
    assert float(y.double().var()) == pytest.approx(1, abs=2e-2)


def test_whole_channels():
    torch.manual_seed(0)
    x = torch.randn(400, 50, 3, 3)
    for layer in (FeatureAlphaDropout(0.2), FeatureAlphaDropout(0.2, variance=1.000001)):
        y = layer(x)
        constant = (y.flatten(2).std(2) < 1e-6).double()
        assert float(constant.mean()) == pytest.approx(0.2, abs=5 * 0.4 / math.sqrt(20_000))
        assert float(y.var()) == pytest.approx(1.0, abs=0.05)
    with pytest.raises(ValueError, match=r"at least 3 dimensions, not shape \[4, 5\].*use AlphaDropout"):
        FeatureAlphaDropout(0.2)(torch.randn(4, 5))
    with pytest.raises(ValueError, match="at least 3 dimensions"):
        FeatureAlphaDropout(0.2).eval()(torch.randn(4, 5))


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, math.nan])
def test_p_outside_of_its_range(p):
    for make in (lambda: AlphaDropout(p), lambda: alpha_dropout(torch.ones(2), p), lambda: matched_p(p)):
        with pytest.raises(ValueError, match=r"has to be in \[0, 1\), not"):
            make()
    with pytest.raises(ValueError, match="variance has to be positive and finite, not 0"):
        AlphaDropout(0.1, variance=0)


def test_tiny_p_is_not_rounded_away():
    torch.manual_seed(0)
    n, p = 4_000_000, 2e-5
    dropped = int((alpha_dropout(torch.zeros(n), p, variance=1.0001) < -1).sum())
    assert abs(dropped - n * p) < 5 * math.sqrt(n * p)


def test_copies_pickles_and_state_dicts():
    net = nn.Sequential(nn.Linear(2, 2), AlphaDropout(0.2, mean=0.1, variance=1.2))
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert (twin[1].p, twin[1].mean, twin[1].variance) == (0.2, 0.1, 1.2)
        twin.load_state_dict(net.state_dict())
    assert list(net[1].state_dict()) == []
    assert repr(net[1]) == "AlphaDropout(p=0.2, mean=0.1, variance=1.2)"


@pytest.mark.parametrize("large", [False, True])
def test_autocast(large):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 512), nn.SELU(), AlphaDropout(0.1))
    with torch.autocast("cpu", torch.bfloat16):
        y = net(torch.randn(1024 if large else 8, 64))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert net[0].weight.grad is not None


def test_compiled_it_keeps_the_moments():
    torch.manual_seed(0)
    layer = torch.compile(AlphaDropout(0.2, mean=0.1), fullgraph=True, backend="aot_eager")
    x = torch.randn(1000, 1000) + 0.1
    y = layer(x)
    assert float(y.mean()) == pytest.approx(0.1, abs=5e-3)
    assert float(y.var()) == pytest.approx(1.0, abs=1e-2)


def test_exported_in_eval_it_is_the_identity():
    program = torch.export.export(nn.Sequential(nn.Linear(3, 3), AlphaDropout(0.5)).eval(), (torch.ones(2, 3),))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    again = torch.export.load(buffer).module()
    assert torch.equal(again(torch.ones(2, 3)), again(torch.ones(2, 3)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("size", [1000, 4_000_000])
def test_on_a_gpu(size):
    x = torch.randn(size, device="cuda", requires_grad=True)
    y = alpha_dropout(x, 0.2)
    y.sum().backward()
    assert y.device == x.device
    assert float(y.var()) == pytest.approx(1.0, abs=10 / math.sqrt(size))
    share = float((x.grad == 0).double().mean())
    assert abs(share - 0.2) < 5 * 0.4 / math.sqrt(size) + 1e-5


@pytest.mark.parametrize("size", [64, 1 << 14, 1 << 16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_dropped_or_stays_at_every_size(size, value):
    """torch's own multiplies by a mask, which makes NaN of a dropped Inf; ours did so below 16,384 elements only."""
    x = torch.full((size,), value)
    y = alpha_dropout(x, 0.5)
    dropped = y.isfinite()
    assert 0.3 < float(dropped.double().mean()) < 0.7
    assert y[dropped].unique().numel() == 1
    assert torch.equal(y[~dropped], x[~dropped]) or (math.isnan(value) and bool(y[~dropped].isnan().all()))


@pytest.mark.parametrize("size", [64, 1 << 16])
def test_integers_are_refused_at_every_size(size):
    with pytest.raises(TypeError, match=r"needs floating-point input, not torch\.int64"):
        alpha_dropout(torch.ones(size, dtype=torch.long), 0.5)
