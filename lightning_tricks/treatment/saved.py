"""A model as it is: modules, parameters, buffers, hooks, modes and values, to be put back bit for bit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer


class Saved:
    """What a model, and optimisers that hold its parameters, are now.

    Args:
        model: Any module.
        optimizers: Besides those that hang on its modules.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> saved, relu = Saved(net), net[1]
    >>> net[1] = nn.SELU()
    >>> saved.put_back()
    >>> net[1] is relu
    True
    """

    def __init__(self, model: nn.Module, optimizers: Iterable[Optimizer] = ()) -> None:
        modules = list(model.modules())
        self._attributes = [(module, dict(vars(module)), _tables(module)) for module in modules]
        tensors = {id(t): t for m in modules for t in (*m.parameters(recurse=False), *m.buffers(recurse=False))}
        known = [tensor for tensor in tensors.values() if not is_lazy(tensor)]
        self._tensors = [(t, t.detach().clone(), t.requires_grad, t.grad) for t in known]
        self.optimizers = [*optimizers, *(each for each in optimizers_of(model) if each not in set(optimizers))]
        self._groups = [
            (each, [(group, dict(group), list(group["params"])) for group in each.param_groups], dict(each.state))
            for each in self.optimizers
        ]

    @torch.no_grad()
    def put_back(self) -> None:
        """Everything as it was, in the same objects."""
        for module, attributes, tables in self._attributes:
            vars(module).clear()
            vars(module).update(attributes)
            for table, entries in tables:
                table.clear()
                table.update(entries)
        for tensor, value, requires_grad, gradient in self._tensors:
            if not same(tensor, value):
                tensor.copy_(value)
            tensor.requires_grad_(requires_grad)
            tensor.grad = gradient
        for optimizer, groups, state in self._groups:
            for group, entries, parameters in groups:
                group.clear()
                group.update(entries)
                group["params"] = parameters
            optimizer.param_groups[:] = [group for group, _, _ in groups]
            optimizer.state.clear()
            optimizer.state.update(state)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors hold the same bits."""
    return torch.equal(one, other) or (
        torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())
    )


def optimizers_of(model: nn.Module) -> list[Optimizer]:
    """Those that its modules keep themselves."""
    return [value for module in model.modules() for value in vars(module).values() if isinstance(value, Optimizer)]


def _tables(module: nn.Module) -> list[tuple[Any, Any]]:
    """The dictionaries and sets in which a module keeps its parts and hooks, with what is in them."""
    return [(value, value.copy()) for value in vars(module).values() if isinstance(value, (dict, set))]
