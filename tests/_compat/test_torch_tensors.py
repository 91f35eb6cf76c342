"""A torch that does not tell what it knows of a tensor."""

import pytest
import torch
from torch import nn

from lightning_tricks import probe
from lightning_tricks._compat import torch_tensors


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


def test_function_transforms_and_optimizers(monkeypatch):
    monkeypatch.delattr(torch._C._functorch, "is_functorch_wrapped_tensor")
    assert not torch_tensors.in_transform(torch.ones(2))
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1)
    assert not torch_tensors.takes_scaled_gradients(optimizer)
    optimizer._step_supports_amp_scaling = True
    assert torch_tensors.takes_scaled_gradients(optimizer)


@pytest.mark.parametrize("name", ["version", "base", "is_view"])
def test_a_step_is_looked_at_without_them(monkeypatch, name):
    silent = {"version": 0, "base": None, "is_view": False}
    monkeypatch.setattr(torch_tensors, name, lambda tensor: silent[name])
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    with probe(net) as p:
        net(torch.ones(2, 3)).sum().backward()
    assert [record.name for record in p.snapshot().weighted] == ["0", "2"]
