"""An entry of the zoo: one model, what it is given, and the loss it is trained by."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def loss_of_call(net: nn.Module, batch: Any) -> Tensor:
    """The model's own loss where it gives one, else a regression of all outputs to zero."""
    output = net(**batch) if isinstance(batch, dict) else net(*batch)
    own = getattr(output, "loss", None)
    return own if isinstance(own, Tensor) else sum(tensor.square().mean() for tensor in floats(output))


def floats(tree: Any) -> Iterator[Tensor]:
    """Every real tensor with a gradient in whatever a model gives."""
    if isinstance(tree, Tensor):
        if tree.requires_grad and tree.numel():
            yield torch.view_as_real(tree) if tree.is_complex() else tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from floats(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from floats(value)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One model of the zoo.

    Args:
        name: Its name in the table.
        group: Where it comes from.
        make: Makes the model; random numbers are seeded before.
        batch: Makes what ``loss`` is given: a tuple of arguments or a dictionary of them.
        loss: The loss of a batch.
        optimizer: Makes the optimiser of the parameters.
        differs: Why the probe does not see as many calls as the dispatcher; where it sees fewer, it has to list that.
        options: For the Trainer.
        fast: Whether it is part of every run of the suite.
    """

    name: str
    group: str
    make: Callable[[], nn.Module]
    batch: Callable[[], Any]
    loss: Callable[[nn.Module, Any], Tensor] = loss_of_call
    optimizer: Callable[[Any], torch.optim.Optimizer] = sgd
    differs: str = ""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    fast: bool = False


def missing(*packages: str) -> list[str]:
    """Which packages are not installed."""
    return [package for package in packages if importlib.util.find_spec(package) is None]


def images(size: int = 64, count: int = 2, channels: int = 3) -> Callable[[], tuple[Tensor]]:
    return lambda: (torch.randn(count, channels, size, size),)


def vectors(*shape: int) -> Callable[[], tuple[Tensor]]:
    return lambda: (torch.randn(*shape),)
