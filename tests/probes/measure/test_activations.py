"""From a pre-activation to sums, without a probe: against NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_tricks.activations import by_name
from lightning_tricks.probes.measure.activations import ActivationCounter
from lightning_tricks.probes.measure.gradient_hooks import GradientHooks
from lightning_tricks.probes.measure.tallies import Tallies
from lightning_tricks.probes.watch.error_guard import ErrorGuard


def counter():
    tallies = Tallies()
    hooks = GradientHooks(lambda name: ErrorGuard.listing(tallies.not_seen, name), None)
    return ActivationCounter(tallies, hooks, None)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("view", [False, True])
def test_sums_and_error_signal(in_place, view):
    counting, g = counter(), by_name("tanh").bind()
    leaf = torch.randn(16, 6, dtype=torch.float64, requires_grad=True)
    a = (2.0 * leaf).view(32, 3) if view else 2.0 * leaf
    before = a.detach().clone().numpy()
    call = counting.before("layer", g, a, None, None, in_place=in_place, gate=False)
    x = a.tanh_() if in_place else a.tanh()
    tally = counting.after(call, x)
    (x**2).sum().backward()
    counting.hooks.close()
    joint = tally.sums.joint
    np.testing.assert_allclose(joint.mean_a, before.mean(0))
    np.testing.assert_allclose(joint.mean_g, np.tanh(before).mean(0))
    delta = 2 * np.tanh(before) * (1 - np.tanh(before) ** 2)
    assert tally.signal.sums.rms == pytest.approx(np.sqrt((delta**2).mean()))


def test_the_second_micro_batch_adds_to_the_first():
    counting, g = counter(), by_name("relu").bind()
    for a in (torch.ones(4, 3), -torch.ones(2, 3)):
        counting.after(counting.before("layer", g, a, None, None, in_place=False, gate=False), a.relu())
    tally = counting.tallies.activations["layer"]
    assert tally.sums.joint.count == 6
    assert tally.outputs.count == 2
    np.testing.assert_allclose(tally.sums.activity, 4 / 6)


@pytest.mark.parametrize(
    ("shape", "axis", "units"),
    [((4, 3), None, 3), ((4, 3, 5, 5), None, 3), ((4, 3, 5), -2, 3), ((4, 3), -4, 3), ((), None, 1)],
)
def test_the_units_lie_where_the_layer_before_had_them(shape, axis, units):
    counting, g, a = counter(), by_name("tanh").bind(), torch.ones(shape)
    tally = counting.after(counting.before("layer", g, a, None, axis, in_place=False, gate=False), a.tanh())
    assert len(tally.sums.joint.mean_a) == units


def test_slopes_per_channel_name_the_units():
    layer, a = nn.PReLU(3), torch.randn(4, 3, 5)
    counting, g = counter(), by_name("prelu").bind(layer.weight)
    tally = counting.after(counting.before("layer", g, a, None, -1, in_place=False, gate=False), layer(a))
    assert len(tally.sums.joint.mean_a) == 3
