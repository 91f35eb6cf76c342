"""A torch that does not tell what it knows of a tensor."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from lightning_tricks import probe
from lightning_tricks._compat import torch_tensors
from lightning_tricks._compat.torch_tensors import transforms_are_active
from lightning_tricks.nn import GhostBatchNorm1d


def test_what_torch_tells():
    x = torch.ones(4)
    assert torch_tensors.base(x) is None
    assert torch_tensors.base(x[:2]) is x
    assert (torch_tensors.is_view(x), torch_tensors.is_view(x[:2])) == (False, True)
    assert torch_tensors.version(x) == 0
    assert torch_tensors.version(x.add_(1)) == 1
    assert not torch_tensors.in_transform(x)
    inside = []
    torch.vmap(lambda row: inside.append(torch_tensors.in_transform(row)) or row)(torch.ones(2, 2))
    assert inside == [True]


class Silent(torch.Tensor):
    """A tensor of a torch without these names."""

    def __getattribute__(self, name):
        if name in ("_version", "_base", "_is_view"):
            raise AttributeError(name)
        return super().__getattribute__(name)


def test_without_these_names_the_answer_is_careful():
    x = torch.ones(4).as_subclass(Silent)
    assert torch_tensors.version(x) == 0
    assert torch_tensors.base(x) is None
    assert not torch_tensors.is_view(torch.ones(4).as_subclass(Silent))
    assert torch_tensors.is_view(torch.ones(4)[:2].as_subclass(Silent))


def test_function_transforms(monkeypatch):
    monkeypatch.delattr(torch._C._functorch, "is_functorch_wrapped_tensor")
    assert not torch_tensors.in_transform(torch.ones(2))


@pytest.mark.parametrize("name", ["version", "base", "is_view"])
def test_a_step_is_looked_at_without_them(monkeypatch, name):
    silent = {"version": 0, "base": None, "is_view": False}
    monkeypatch.setattr(torch_tensors, name, lambda tensor: silent[name])
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    with probe(net) as p:
        net(torch.ones(2, 3)).sum().backward()
    assert [record.name for record in p.snapshot().weighted] == ["0", "2"]


def test_under_transforms_and_without():
    seen = []

    def look(x):
        seen.append(transforms_are_active())
        return x

    assert not transforms_are_active()
    torch.func.vmap(look)(torch.ones(2))
    torch.func.grad(look)(torch.tensor(1.0))
    with forward_ad.dual_level():
        look(None)
    assert seen == [True, True, True]
    assert not transforms_are_active()


def test_without_the_private_names_the_general_way_is_taken(monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(7, 3)
    expected = GhostBatchNorm1d(3, ghost_size=3)(x)
    monkeypatch.delattr(torch._C, "_are_functorch_transforms_active")
    assert transforms_are_active()
    assert torch.equal(GhostBatchNorm1d(3, ghost_size=3)(x), expected)
    monkeypatch.undo()
    monkeypatch.delattr(forward_ad, "_current_level")
    assert transforms_are_active()
