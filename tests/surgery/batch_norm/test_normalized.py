"""The modules that surgery leaves behind, against what they stand for."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.surgery.batch_norm.normalized import ChannelPad, FoldedBatchNorm, NormalizedLayer


def test_a_normalised_layer_is_layer_and_batch_norm_in_a_row():
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    x = torch.randn(5, 3, 6, 6)
    assert torch.equal(NormalizedLayer(conv, norm)(x), copy.deepcopy(norm)(conv(x)))


def test_tokens_are_rows_of_one_table():
    linear, norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
    x = torch.randn(5, 7, 2, 3)
    expected = copy.deepcopy(norm)(linear(x.reshape(-1, 3))).reshape(5, 7, 2, 4)
    assert torch.equal(NormalizedLayer(linear, norm)(x), expected)


def test_what_is_asked_of_the_layer_is_still_there():
    layer = NormalizedLayer(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4))
    assert (layer.in_features, layer.out_features, layer.bias) == (3, 4, None)
    assert layer.weight is layer.layer.weight
    with pytest.raises(AttributeError, match="nowhere"):
        layer.nowhere  # noqa: B018
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        x = torch.randn(5, 3)
        assert torch.equal(other.eval()(x), layer.eval()(x))


def test_a_folded_batch_norm_hands_through_what_it_was_folded_for():
    folded = FoldedBatchNorm("conv", 4)
    x = torch.randn(2, 3, 4, 4)
    assert folded(x) is x
    with pytest.raises(ValueError, match=r"folded into 'conv' for 4-dimensional .* shape \[2, 3\]; fold with batch="):
        folded(x[..., 0, 0])


def test_channels_are_padded_each_by_its_own_value():
    x, values = torch.randn(2, 3, 4, 5), torch.tensor([1.0, -2.0, 7.0])
    y = ChannelPad("conv", [1, 2, 0, 3], values)(x)
    for channel, value in enumerate(values.tolist()):
        expected = F.pad(x[:, channel], [1, 2, 0, 3], value=value)
        torch.testing.assert_close(y[:, channel], expected)
    with pytest.raises(ValueError, match="4-dimensional"):
        ChannelPad("conv", [1, 2, 0, 3], values)(x[0])
