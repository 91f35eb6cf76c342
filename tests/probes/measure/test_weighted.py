"""From a call of a weighted operation to sums, without a probe: against NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_tricks.probes import probe
from lightning_tricks.probes.measure.gradient_hooks import GradientHooks
from lightning_tricks.probes.measure.operations import FUNCTIONS
from lightning_tricks.probes.measure.tallies import Tallies
from lightning_tricks.probes.measure.weighted import WeightedCounter
from lightning_tricks.probes.watch.error_guard import ErrorGuard


def counter():
    tallies = Tallies()
    return WeightedCounter(tallies, GradientHooks(lambda name: ErrorGuard.listing(tallies.not_seen, name), None), None)


def count(counting, layer, x, source=None):
    operation = FUNCTIONS["functional.linear"]
    y = layer(x)
    call = operation.read((x, layer.weight, layer.bias), {}, lambda tensor: True)
    return counting.count("layer", operation, call, y, source, "layer.weight"), y


def test_moments_and_error_signal():
    counting, layer, x = counter(), nn.Linear(4, 3), torch.randn(10, 4)
    tally, y = count(counting, layer, x)
    (3.0 * y).sum().backward()
    counting.hooks.close()
    np.testing.assert_allclose(tally.sums.input.mean, x.numpy().mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tally.sums.output.variance, y.detach().numpy().var(0), rtol=1e-4)
    assert tally.signal.sums.rms == pytest.approx(3.0)
    assert (tally.operation, tally.weight, tally.elements) == ("linear", "layer.weight", 30)


def test_it_follows_the_operation_that_its_input_came_from():
    counting, layer = counter(), nn.Linear(4, 4)
    first, y = count(counting, layer, torch.randn(10, 4))
    counting.tallies.weighted.clear()
    second, _ = count(counting, layer, y, first)
    assert (first.follows, second.follows) == (None, "layer")


def test_a_trainable_weight_without_a_gradient_is_listed():
    counting, layer = counter(), nn.Linear(4, 3)
    with torch.no_grad():
        tally, _ = count(counting, layer, torch.randn(10, 4))
    assert not tally.with_gradient
    assert list(counting.tallies.not_seen) == ["layer (error signal)"]


def test_variation_and_resolution_against_numpy():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), torch.randn(32, 4)
    with probe(net) as p:
        hidden = net[0](x)
        net[2](net[1](hidden)).sum().backward()
    layer, relu = p.snapshot().weighted[0], p.snapshot().activations[0]

    def variation(y):
        y = y.detach().double().numpy()
        return y.std(0).max() / np.sqrt((y * y).mean(0).max())

    assert layer.variation == relu.input_variation == pytest.approx(variation(hidden), rel=1e-5)
    assert layer.input_variation == pytest.approx(variation(x), rel=1e-5)
    assert relu.variation == pytest.approx(variation(hidden.relu()), rel=1e-5)
    assert layer.resolution == relu.resolution == torch.finfo(torch.float32).eps


def test_equal_patterns_do_not_vary():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    with probe(net) as p:
        net(torch.randn(1, 4).expand(32, 4)).sum().backward()
    assert p.snapshot().weighted[0].variation < 1e-6
    nn.init.constant_(net[0].bias, -100.0)
    with probe(net) as p:
        net(torch.randn(32, 4)).sum().backward()
    assert p.snapshot().activations[0].variation == 0.0 < p.snapshot().activations[0].input_variation
