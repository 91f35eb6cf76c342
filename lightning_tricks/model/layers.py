"""What kind of layer a module is, as far as running a model has to know."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from lightning_tricks._compat.torch_modules import ConvNd, NormBase

__all__ = ["Model", "has_running_statistics", "is_weighted"]

Model = TypeVar("Model", bound=nn.Module)  # what changes a model gives back the type that it was given

_WEIGHTED = (
    nn.Linear,
    nn.Bilinear,
    ConvNd,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RNNCellBase,
)


def is_weighted(module: nn.Module) -> bool:
    """Whether ``lt.init.weight_blocks`` knows this kind of module.

    >>> is_weighted(nn.Conv2d(3, 8, 3)), is_weighted(nn.LayerNorm(8))
    (True, False)
    """
    return isinstance(module, _WEIGHTED)


def has_running_statistics(module: nn.Module) -> bool:
    """Whether a module is a batch or instance norm, torch's or one built like it: what it computes hangs on its flag.

    >>> has_running_statistics(nn.BatchNorm1d(8)), has_running_statistics(nn.LayerNorm(8))
    (True, False)
    """
    return isinstance(module, NormBase) or hasattr(module, "track_running_stats")
