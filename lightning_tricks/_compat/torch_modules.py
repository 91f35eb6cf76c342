"""Base classes of torch's layers, and what a module keeps under private names: parameters, buffers, children, hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules import dropout

__all__ = [
    "DropoutNd",
    "backward_hooks_of",
    "buffers_of",
    "children_of",
    "forward_hooks_of",
    "forward_pre_hooks_of",
    "parameters_of",
]

if TYPE_CHECKING:
    from torch.nn.modules.dropout import _DropoutNd as DropoutNd
else:
    _DROPOUTS = nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d | nn.AlphaDropout | nn.FeatureAlphaDropout
    DropoutNd = getattr(dropout, "_DropoutNd", _DROPOUTS)

Hooks = dict[int, Callable[..., Any]]


def parameters_of(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """A module's own parameters; writing to it takes the place of ``setattr`` without its checks."""
    return module._parameters


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """A module's own buffers; writing to it takes the place of ``setattr`` without its checks."""
    return module._buffers


def children_of(module: nn.Module) -> dict[str, nn.Module | None]:
    """A module's children with every name that they have in it, and with the empty places."""
    return module._modules


def forward_hooks_of(module: nn.Module) -> Hooks:
    """The hooks that run after a module's forward."""
    return module._forward_hooks


def forward_pre_hooks_of(module: nn.Module) -> Hooks:
    """The hooks that run before a module's forward."""
    return module._forward_pre_hooks


def backward_hooks_of(module: nn.Module) -> list[Callable[..., Any]]:
    """The hooks that run before and after a module's backward."""
    return [*module._backward_pre_hooks.values(), *module._backward_hooks.values()]
