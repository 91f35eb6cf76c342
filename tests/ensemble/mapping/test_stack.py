"""Common tensors and the members' views of them."""

import pytest
import torch
from torch import nn

from lightning_tricks.ensemble.mapping.stack import Stack


def members(count=3):
    return [nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.Linear(16, 1)).double() for _ in range(count)]


def test_stacking_changes_no_value():
    made = members()
    before = [{name: value.clone() for name, value in member.state_dict().items()} for member in made]
    stack = Stack(made)
    for member, old in zip(made, before, strict=True):
        assert all(torch.equal(value, old[name]) for name, value in member.state_dict().items())
    views = dict(zip([*stack.parameters, *stack.buffers], stack.views(), strict=True))
    assert torch.equal(views["0.weight"][1], before[1]["0.weight"])
    assert torch.equal(views["1.running_var"][2], before[2]["1.running_var"])
    assert stack.transposed == {"0.weight"}
    assert stack.parameters["0.weight"].shape == (3, 2, 16)
    assert stack.parameters["0.weight"].is_contiguous()


def test_steps_on_the_stack_are_steps_of_the_members_and_back():
    made = members()
    stack = Stack(made)
    with torch.no_grad():
        stack.parameters["0.weight"][1].fill_(3.0)
        made[2][2].bias.fill_(5.0)
        made[0](torch.randn(4, 2, dtype=torch.float64))
    assert bool((made[1][0].weight == 3.0).all())
    assert float(stack.parameters["2.bias"].detach()[2, 0]) == 5.0
    assert stack.buffers["1.num_batches_tracked"].tolist() == [1, 0, 0]


def test_gradients_are_collected_and_added():
    made = members()
    stack, x = Stack(made), torch.randn(4, 2, dtype=torch.float64)
    expected = []
    for _ in range(2):
        grads = [torch.autograd.grad(member(x).square().sum(), member[0].weight)[0] for member in made]
        expected.append(torch.stack(grads).mT)
        for member in made:
            member(x).square().sum().backward()
        stack.collect_gradients()
    assert torch.allclose(stack.parameters["0.weight"].grad, expected[0] + expected[1])
    assert all(value.grad is None for member in made for value in member.parameters())


def test_what_nobody_used_gets_no_gradient():
    made = members()
    stack = Stack(made)
    for member in made:
        member[2](torch.ones(1, 16, dtype=torch.float64)).sum().backward()
    stack.collect_gradients()
    assert stack.parameters["0.weight"].grad is None
    assert stack.parameters["2.weight"].grad.shape == (3, 1, 16)


@pytest.mark.parametrize("rows", [[0, 2], [1]])
def test_keeping_some(rows):
    made = members()
    stack = Stack(made)
    weights = [member[0].weight.detach().clone() for member in made]
    stack.select(rows)
    assert stack.parameters["0.weight"].shape[0] == len(rows)
    with torch.no_grad():
        stack.parameters["0.weight"].zero_()
    for number, member in enumerate(made):
        kept = number in rows
        assert bool((member[0].weight == 0).all()) == kept
        assert kept or torch.equal(member[0].weight, weights[number])


def test_release_gives_each_member_its_own_tensors():
    made = members()
    stack = Stack(made)
    weights = [member[0].weight.detach().clone() for member in made]
    stack.release()
    with torch.no_grad():
        stack.parameters["0.weight"].zero_()
    for member, weight in zip(made, weights, strict=True):
        assert torch.equal(member[0].weight, weight)
        assert member[0].weight.untyped_storage().nbytes() == weight.numel() * 8
