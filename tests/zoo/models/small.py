"""Small networks of torch, and the entries that they make: what the files beside share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .entry import Entry, vectors

Batch = Callable[[], Any]
X = vectors(8, 6)
SEQUENCE = vectors(4, 5, 6)


def tokens() -> tuple[torch.Tensor]:
    return (torch.randint(12, (4, 5)),)


def mlp(activation: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), activation or nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


class Called(nn.Module):
    """Layers, and how they are called: ``forward(self, x)`` is a function of the module and its input."""

    def __init__(self, call: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        self.call = call
        for name, layer in (layers or {"net": mlp()}).items():
            setattr(self, name, layer)

    def forward(self, *inputs: Any) -> Any:
        return self.call(self, *inputs)


def entry(name: str, make: Callable[[], nn.Module], batch: Batch = X, **options: Any) -> Entry:
    return Entry(name, options.pop("group", "torch"), make, batch, fast=options.pop("fast", True), **options)


def on(call: Callable[..., Any]) -> Callable[[], nn.Module]:
    return functools.partial(Called, call)


def hidden(call: Callable[..., Any]) -> Callable[[], nn.Module]:
    return lambda: Called(call, one=nn.Linear(6, 8), two=nn.Linear(8, 3))
