"""What kind of layer a module is, as far as running a model has to know."""

from __future__ import annotations

from typing import Any, TypeGuard, TypeVar

from torch import nn

from lightning_tricks._compat.torch_modules import BatchNorm, ConvNd, NormBase

__all__ = [
    "RMS_NORMS",
    "Model",
    "has_running_statistics",
    "is_batch_norm",
    "is_linear",
    "is_mean_only",
    "is_normalization",
    "is_weighted",
]

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


def is_linear(module: Any) -> TypeGuard[Any]:
    """Whether it is a linear layer or a convolution, transposed ones among them.

    >>> is_linear(nn.ConvTranspose1d(3, 8, 3)), is_linear(nn.Embedding(3, 8))
    (True, False)
    """
    return isinstance(module, (nn.Linear, ConvNd))


_BATCH_NORM = ("num_features", "momentum", "track_running_stats", "running_mean", "num_batches_tracked")
RMS_NORMS: tuple[type, ...] = (nn.RMSNorm,) if hasattr(nn, "RMSNorm") else ()


def is_batch_norm(module: nn.Module) -> TypeGuard[Any]:
    """Whether a module is a batch norm: torch's, one derived from it, or one that keeps the same statistics.

    >>> is_batch_norm(nn.BatchNorm2d(8)), is_batch_norm(nn.InstanceNorm2d(8)), is_batch_norm(nn.LayerNorm(8))
    (True, False, False)
    """
    if isinstance(module, NormBase):
        return isinstance(module, BatchNorm)
    return all(hasattr(module, name) for name in _BATCH_NORM)


def is_mean_only(module: nn.Module) -> TypeGuard[Any]:
    """Whether a batch norm takes the mean away and leaves the scale."""
    return is_batch_norm(module) and not hasattr(module, "running_var")


def is_normalization(module: nn.Module) -> TypeGuard[Any]:
    """Whether a module is a batch, instance, group, layer or RMS norm.

    >>> is_normalization(nn.GroupNorm(2, 8)), is_normalization(nn.Dropout())
    (True, False)
    """
    return is_batch_norm(module) or isinstance(module, (NormBase, nn.GroupNorm, nn.LayerNorm, *RMS_NORMS))


def has_running_statistics(module: nn.Module) -> bool:
    """Whether a module is a batch or instance norm, torch's or one built like it: what it computes hangs on its flag.

    >>> has_running_statistics(nn.BatchNorm1d(8)), has_running_statistics(nn.LayerNorm(8))
    (True, False)
    """
    return isinstance(module, NormBase) or hasattr(module, "track_running_stats")
