"""A summary counts as torchinfo does, predicts what is measured, says what starts badly, and leaves no trace."""

from __future__ import annotations

import copy
import json
import math

import lightning.pytorch as L
import pytest
import torch
from torch import nn

import lightning_tricks as lt

pytestmark = pytest.mark.usefixtures("nothing_left")


class Mixed(nn.Module):
    """What has no plain order: a sum, a recurrence, attention, a parameter of its own, a layer that never runs."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 5, 8))
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.head, self.unused = nn.Linear(8, 3), nn.Linear(2, 2)

    def forward(self, x):
        return self.head(torch.relu(self.lstm(self.attention(x + self.position))[0][:, -1]))


def rows(found):
    return {row.name: row for row in found.layers}


def test_a_sequential():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 9, 10))
    found = lt.summary(net, (torch.randn(128, 3, 8, 8), torch.zeros(128)))
    assert [row.kind for row in found.layers] == ["Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear"]
    assert [row.shape for row in found.layers][:3] == [(128, 32, 6, 6), (128, 32, 6, 6), (128, 32, 3, 3)]
    assert [row.parameters for row in found.layers] == [896, 0, 0, 0, 2890]
    assert found.parameters == found.trainable == 3786
    assert found.layers[0].predicted == pytest.approx(found.layers[0].std, rel=0.05)
    assert 0.6 < found.layers[1].linearity < 0.8
    assert found.layers[1].transmission == pytest.approx(0.5, abs=0.05)
    assert "Nothing starts badly." in str(found)


def test_every_parameter_is_counted_once_in_any_network():
    net = Mixed()
    net.head.requires_grad_(False)
    found = lt.summary(net, torch.randn(16, 5, 8))
    assert sum(row.parameters for row in found.layers) == found.parameters == sum(p.numel() for p in net.parameters())
    assert found.parameters - found.trainable == 27
    named = rows(found)
    assert "never called" in named["unused"].kind
    assert "several tensors" in named["lstm"].why_not or "no weighted sum" in named["lstm"].why_not
    assert math.isnan(named["lstm"].predicted)
    assert named["attention.linear1"].predicted == pytest.approx(named["attention.linear1"].std, rel=0.2)
    names = [row.name for row in found.layers]
    assert names.index("lstm") < names.index("relu") < names.index("head")  # a function between two modules
    assert "27 are frozen" in str(found)


def test_a_module_that_is_called_twice_is_one_row():
    shared = nn.Linear(4, 4)
    found = lt.summary(nn.Sequential(shared, nn.Tanh(), shared), torch.randn(8, 4))
    assert sum(row.parameters for row in found.layers) == 20


def test_what_starts_badly():
    torch.manual_seed(0)
    net = nn.Sequential(*(part for _ in range(4) for part in (nn.Linear(64, 64), nn.Sigmoid())), nn.Linear(64, 3))
    with torch.no_grad():
        for layer in net[::2]:
            layer.weight.mul_(1e-3)
    found = lt.summary(net, torch.randn(64, 64))
    assert {finding.problem for finding in found.findings} & {"poor_initialization", "vanishing_gradient", "linearity"}
    assert "What starts badly" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["findings"]


def test_the_model_stays_as_it_was():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).eval()
    before, stream = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    lt.summary(net, torch.randn(8, 4))
    torch.set_rng_state(stream)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net.training
    assert net[0].weight.grad is None
    assert not net[0]._forward_hooks


def test_a_lightning_module_needs_a_forward_or_to_be_told():
    class Bare(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 2)

    with pytest.raises(TypeError, match="has no forward"):
        lt.summary(Bare(), torch.randn(4, 4))
    found = lt.summary(Bare(), torch.randn(4, 4), forward=lambda model, batch: model.net(batch))
    assert found.parameters == 10
