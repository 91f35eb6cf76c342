"""The loss of a step is what left a gradient for it."""

import pytest
import torch
from torch import nn

from lightning_tricks.watch.step_loss import LossScale, StepLoss, trained_by


def go(loss, value):
    loss.before(value)
    value.backward()
    loss.after()


def test_losses_add_up_until_gradients_are_cleared():
    layer = nn.Linear(2, 1)
    loss = StepLoss(layer.parameters())
    values = [layer(torch.ones(3, 2)).square().mean() for _ in range(3)]
    go(loss, values[0])
    layer.zero_grad()
    go(loss, values[1])
    go(loss, values[2])
    assert float(loss.take()) == pytest.approx(float((values[1] + values[2]).detach()))
    assert loss.take() is None


def test_what_leaves_no_gradient_is_none_of_the_step():
    layer, other = nn.Linear(2, 1), nn.Linear(2, 1)
    loss = StepLoss(layer.parameters())
    go(loss, layer(torch.ones(3, 2)).sum())
    value = loss._total.clone()
    go(loss, other(torch.ones(3, 2)).sum())
    assert torch.equal(loss.take(), value)


def test_a_loss_that_is_overwritten_later_was_read_before():
    layer = nn.Linear(2, 1)
    loss, value = StepLoss(layer.parameters()), layer(torch.ones(3, 2)).square().sum()
    wanted = float(value.detach())
    go(loss, value)
    value.detach().zero_()
    assert float(loss.take()) == pytest.approx(wanted)


def test_vectors_are_no_losses():
    layer = nn.Linear(2, 3)
    loss, output = StepLoss(layer.parameters()), layer(torch.ones(1, 2))
    loss.before(output)
    output.backward(torch.ones_like(output))
    loss.after()
    assert loss.take() is None


def test_trained_are_those_that_an_optimiser_holds():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert trained_by(net, [torch.optim.SGD(net[1].parameters())]) == list(net[1].parameters())


def test_a_scaler_shows_when_it_makes_a_step():
    layer = nn.Linear(2, 1)
    optimizer, scaler, scale = torch.optim.SGD(layer.parameters()), torch.amp.GradScaler("cpu", 512.0), LossScale()
    optimizer.register_step_pre_hook(lambda *given: scale.find())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert scale.now == 1.0
    scaler.scale(layer(torch.ones(1, 2)).sum()).backward()
    scaler.step(optimizer)
    assert float(scale.now) == 512.0
    assert float(scale.taken_off(torch.tensor(1024.0))) == 2.0
