"""What an optimiser holds after surgery, and that it trains on."""

import pytest
import torch
from torch import nn

from lightning_tricks.surgery.optimizer import hand_over, refuse_wrapped


def holds(group, *parameters):
    return len(group["params"]) == len(parameters) and all(
        a is b for a, b in zip(group["params"], parameters, strict=True)
    )


def test_parameters_go_and_come_group_by_group():
    a, b, norm = nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2)
    groups = [{"params": a.parameters(), "lr": 0.1}, {"params": b.parameters(), "lr": 0.2}]
    optimizer = torch.optim.Adam(groups)
    b(a(torch.randn(3, 2))).sum().backward()
    optimizer.step()
    kept = optimizer.state[b.weight]["exp_avg"].clone()
    hand_over(optimizer, [b.bias], {norm.weight: b.weight, norm.bias: b.weight})
    first, second = optimizer.param_groups
    assert holds(first, a.weight, a.bias)
    assert holds(second, b.weight, norm.weight, norm.bias)
    assert second["lr"] == 0.2
    assert b.bias not in optimizer.state
    assert torch.equal(optimizer.state[b.weight]["exp_avg"], kept)
    before = norm.weight.detach().clone()
    norm(b.weight).pow(3).sum().backward()
    optimizer.step()
    assert not torch.equal(norm.weight, before)


def test_what_joins_a_frozen_layer_stays_out():
    frozen, trained, norm = nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    hand_over(optimizer, [frozen.bias], {norm.weight: frozen.weight})
    assert holds(optimizer.param_groups[0], trained.weight, trained.bias)


def test_a_parameter_that_is_there_does_not_come_twice():
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    hand_over(optimizer, [], {layer.bias: layer.weight})
    assert holds(optimizer.param_groups[0], layer.weight, layer.bias)


def test_no_optimiser_is_nothing_to_do():
    hand_over(None, [nn.Parameter(torch.ones(1))], {})


def test_a_model_wrapped_for_several_processes_is_refused():
    model = nn.Linear(2, 2)
    refuse_wrapped(model, "surgery")
    wrapped = object.__new__(nn.parallel.DistributedDataParallel)  # its constructor needs a process group
    with pytest.raises(ValueError, match="surgery: change the model before wrapping it"):
        refuse_wrapped(wrapped, "surgery")
