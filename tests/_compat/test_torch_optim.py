"""The question about graph capture: left out where torch has it, no trace where it has not."""

import pytest
import torch
from torch import nn

from lightning_tricks._compat.torch_optim import (
    _GRAPH_CAPTURE,
    current_scale,
    skip_graph_capture_check,
    unscales_itself,
)


def optimizer():
    return torch.optim.Adam([nn.Parameter(torch.ones(2))])


def test_it_is_left_out_and_the_step_is_the_same():
    one, two = optimizer(), optimizer()
    skip_graph_capture_check(one)
    assert set(_GRAPH_CAPTURE) & vars(one).keys()
    for each in (one, two):
        each.param_groups[0]["params"][0].grad = torch.tensor([1.0, -2.0])
        each.step()
    assert torch.equal(one.param_groups[0]["params"][0], two.param_groups[0]["params"][0])
    assert one.state_dict().keys() == two.state_dict().keys()


def test_names_taken_away(monkeypatch: pytest.MonkeyPatch):
    made = optimizer()
    for name in _GRAPH_CAPTURE:
        monkeypatch.delattr(torch.optim.Optimizer, name, raising=False)
    skip_graph_capture_check(made)
    assert not set(_GRAPH_CAPTURE) & vars(made).keys()


def used():
    """A scaler that has scaled a loss already."""
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    scaler.scale(torch.ones(()))
    return scaler


def test_scale_is_a_copy_on_the_device():
    scaler = used()
    scale = current_scale(scaler)
    scaler._scale.fill_(2.0)
    assert torch.equal(scale, torch.tensor(64.0))
    assert current_scale(torch.amp.GradScaler("cpu", init_scale=8.0)) == 8.0  # before the first backward pass


def test_scale_by_its_public_name(monkeypatch):
    class Renamed(torch.amp.GradScaler):
        def get_scale(self):
            return 16.0

    scaler = Renamed("cpu")
    monkeypatch.delattr(scaler, "_scale")
    assert current_scale(scaler) == 16.0


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
@pytest.mark.parametrize("marked", [True, False], ids=["by its mark", "without"])
def test_fused_optimisers_unscale_themselves(kind, marked, monkeypatch):
    parameters = [torch.nn.Parameter(torch.ones(2))]
    fused = kind(parameters, lr=0.1, fused=True)
    if not marked:
        monkeypatch.delattr(fused, "_step_supports_amp_scaling", raising=False)
    assert unscales_itself(fused)
    assert not unscales_itself(kind(parameters, lr=0.1))
    assert not unscales_itself(torch.optim.Rprop(parameters))
    assert not unscales_itself(object())
