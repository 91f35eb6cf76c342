"""Folding arithmetic against the two layers run one after the other, in float64."""

import itertools

import pytest
import torch
from torch import nn

from lightning_tricks.nn import MeanOnlyBatchNorm1d
from lightning_tricks.surgery.batch_norm.absorb import (
    Unfoldable,
    absorb_after,
    absorb_before,
    padding_of,
    scale_and_shift,
)

SCALE, SHIFT = torch.tensor([0.5, -2.0, 3.0, 1.5]).double(), torch.tensor([1.0, 0.0, -4.0, 2.0]).double()
LAYERS = {
    f"{cls.__name__}, {groups} groups": (cls, groups)
    for cls, groups in itertools.product((nn.Conv1d, nn.Conv3d, nn.ConvTranspose2d), (1, 2, 4))
}


def per_channel(values, x):
    return values.view((1, -1) + (1,) * (x.dim() - 2))


def layer_and_input(cls, groups, kernel, **options):
    layer = cls(4, 4, kernel, groups=groups, **options).double()
    return layer, torch.randn((2, 4) + (5,) * len(layer.kernel_size), dtype=torch.float64)


def with_values(layer, weight, bias):
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


@pytest.mark.parametrize("name", LAYERS)
def test_behind_a_convolution(name):
    layer, x = layer_and_input(*LAYERS[name], 3, padding=1)
    y = layer(x)
    expected = y * per_channel(SCALE, y) + per_channel(SHIFT, y)
    folded = with_values(layer, *absorb_after(layer, layer.weight, layer.bias, SCALE, SHIFT))
    torch.testing.assert_close(folded(x), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_before_a_convolution(name):
    layer, x = layer_and_input(*LAYERS[name], 1 if "Transpose" in name else 3)
    expected = layer(x * per_channel(SCALE, x) + per_channel(SHIFT, x))
    weight, bias, values = absorb_before(layer, layer.weight, layer.bias, SCALE, SHIFT)
    assert values is None
    torch.testing.assert_close(with_values(layer, weight, bias)(x), expected)


def test_before_a_linear_layer():
    layer, x = nn.Linear(4, 3).double(), torch.randn(5, 4, dtype=torch.float64)
    expected = layer(x * SCALE + SHIFT)
    weight, bias, _ = absorb_before(layer, layer.weight, layer.bias, SCALE, SHIFT)
    torch.testing.assert_close(with_values(layer, weight, bias)(x), expected)


def test_what_is_padded_turns_into_zero():
    layer, _ = layer_and_input(nn.Conv1d, 1, 3, padding=1)
    *_, values = absorb_before(layer, layer.weight, layer.bias, SCALE, SHIFT)
    torch.testing.assert_close(SCALE * values + SHIFT, torch.zeros(4).double())


def test_what_cannot_be_is_refused():
    layer, _ = layer_and_input(nn.ConvTranspose2d, 1, 3)
    with pytest.raises(Unfoldable, match="kernel or stride over 1"):
        absorb_before(layer, layer.weight, layer.bias, SCALE, SHIFT)
    layer, _ = layer_and_input(nn.Conv1d, 1, 3, padding=1)
    with pytest.raises(Unfoldable, match="scale 0"):
        absorb_before(layer, layer.weight, layer.bias, torch.zeros_like(SCALE), SHIFT)
    with pytest.raises(Unfoldable, match="no running statistics"):
        scale_and_shift(nn.BatchNorm1d(4, track_running_stats=False))


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False), MeanOnlyBatchNorm1d(4)])
def test_scale_and_shift_are_what_eval_does(norm):
    x = torch.randn(50, 4) * 2 + 1
    for _ in range(5):
        norm(x)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    scale, shift = scale_and_shift(norm)
    torch.testing.assert_close((x * scale + shift).float(), norm.eval()(x), rtol=1e-5, atol=1e-5)


def test_padding_as_pad_takes_it():
    x = torch.randn(1, 1, 4, 5)
    layer = nn.Conv2d(1, 1, (3, 5), padding="same")
    expected = layer(x)
    padded = nn.functional.pad(x, padding_of(layer))
    layer.padding = (0, 0)
    torch.testing.assert_close(layer(padded), expected)
