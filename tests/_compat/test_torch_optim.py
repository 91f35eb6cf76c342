"""The question about graph capture: left out where torch has it, no trace where it has not."""

import pytest
import torch
from torch import nn

from lightning_tricks._compat.torch_optim import _GRAPH_CAPTURE, skip_graph_capture_check


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
