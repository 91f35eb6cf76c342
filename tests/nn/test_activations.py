"""The shifted ReLU against its definition."""

import math
import pickle

import pytest
import torch
from torch import nn

from lightning_tricks.activations import activation_of
from lightning_tricks.init import moments
from lightning_tricks.nn import ShiftedReLU


@pytest.mark.parametrize("shift", [1.0, 0.25])
def test_shifted_relu(shift):
    layer = ShiftedReLU(shift)
    a = torch.linspace(-3, 3, 601, dtype=torch.float64, requires_grad=True)
    assert torch.equal(layer(a), torch.clamp(a, min=-shift))
    (slope,) = torch.autograd.grad(layer(a).sum(), a)
    away = (a.detach() + shift).abs() > 1e-6
    assert torch.equal(slope[away], (a.detach() > -shift).double()[away])
    bound = activation_of(layer)
    assert bound.name == "threshold"
    assert torch.allclose(bound.derivative(a.detach()), slope)
    assert bound.flat_sides == (pytest.approx(-shift, abs=1e-9), math.inf)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(a), layer(a))
    inplace = a.detach().clone()
    assert ShiftedReLU(shift, inplace=True)(inplace) is inplace


def test_shifted_relu_brings_the_mean_nearer_to_zero():
    assert abs(moments(ShiftedReLU()).mean) < 0.25 * moments(nn.ReLU()).mean
    with pytest.raises(ValueError, match="shift has to be finite, not inf"):
        ShiftedReLU(math.inf)
