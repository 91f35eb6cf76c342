"""Dropout as approximate bagging: against closed forms."""

import pytest
import torch
from torch import nn

import lightning_tricks as lt
from lightning_tricks.ensemble import MonteCarloDropout


def test_mean_and_variance_of_one_linear_layer():
    """y = sum w_i x_i m_i / (1 - p): mean w x, variance sum (w x)^2 p / (1 - p)."""
    model = nn.Sequential(nn.Dropout(0.3), nn.Linear(5, 1, bias=False)).double()
    x = torch.randn(2, 5, dtype=torch.float64)
    torch.manual_seed(0)
    found = MonteCarloDropout(model, 4000, task="regression").predict(x)
    parts = model[1].weight.detach() * x
    variance = parts.square().sum(1, keepdim=True) * 0.3 / 0.7
    assert torch.allclose(found.mean, parts.sum(1, keepdim=True), atol=4 * float(variance.max() / 4000) ** 0.5)
    assert torch.allclose(found.variance, variance, rtol=0.15)


def test_weight_scaling_is_the_geometric_mean_of_a_softmax_layer():
    """All 2^n thinned networks of one softmax layer: their normalised geometric mean is the scaled network."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)).double()
    x = torch.randn(1, 4, dtype=torch.float64)
    logs = []
    for code in range(16):
        mask = torch.tensor([code >> bit & 1 for bit in range(4)], dtype=torch.float64)
        logs.append(model[1](x * mask * 2).log_softmax(-1))
    geometric = torch.stack(logs).mean(0).softmax(-1)
    found = MonteCarloDropout(model).weight_scaling(x)
    assert found.members.shape == (1, 1, 3)
    assert torch.allclose(found.mean, geometric, atol=1e-12)


LAYERS = [nn.Dropout(0.5), nn.AlphaDropout(0.5), nn.FeatureAlphaDropout(0.5), lt.nn.AlphaDropout(0.5)]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__module__ + type(layer).__name__)
def test_only_dropout_draws_and_the_model_stays_as_it_is(layer):
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), layer, nn.Linear(8, 3))
    model[0].eval()
    flags = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = MonteCarloDropout(model, 5).predict(torch.randn(7, 4))
    assert found.members.shape == (5, 7, 3)
    assert float(found.variance.min()) > 0
    assert bool((found.mutual_information >= 0).all())
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("model", [nn.Linear(2, 1), nn.Dropout(0.0), nn.LSTM(2, 2, 2, dropout=0.5)])
def test_nothing_to_draw(model):
    with pytest.raises(ValueError, match="no dropout layer with p > 0"):
        MonteCarloDropout(model)


def test_number_of_samples():
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        MonteCarloDropout(nn.Dropout(0.5), 0)
