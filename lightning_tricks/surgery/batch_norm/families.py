"""The 1d, 2d and 3d classes of one kind of batch norm."""

from __future__ import annotations

import sys

from lightning_tricks.nn.batch_norm import BatchNorm

__all__ = ["dimensions_of", "member"]


def dimensions_of(cls: type) -> int | None:
    """1, 2 or 3 for ``BatchNorm1d``, ``BatchNorm2d``, ``BatchNorm3d`` and whatever is named or derived so.

    >>> from torch import nn
    >>> dimensions_of(nn.BatchNorm2d), dimensions_of(nn.SyncBatchNorm)
    (2, None)
    """
    for base in cls.__mro__:
        name = base.__name__
        if name[-2:] in ("1d", "2d", "3d"):
            return int(name[-2])
    return None


def member(cls: type, dimensions: int | None) -> type:
    """The class of the same kind for inputs of so many dimensions: ``GhostBatchNorm1d`` for ``GhostBatchNorm2d`` and 1.

    Raises:
        TypeError: ``cls`` is no batch norm, or has no sibling for these dimensions.
    """
    if not (isinstance(cls, type) and issubclass(cls, BatchNorm)):
        raise TypeError(f"a batch-norm class is needed, such as nn.BatchNorm2d or GhostBatchNorm2d, got {cls!r}")
    own = dimensions_of(cls)
    if own is None or dimensions is None or own == dimensions:
        return cls
    name = f"{cls.__name__[:-2]}{dimensions}d"
    sibling = getattr(sys.modules[cls.__module__], name, None)
    if not cls.__name__.endswith(f"{own}d") or not isinstance(sibling, type):
        raise TypeError(f"{cls.__name__} has no {dimensions}-dimensional sibling {name} in {cls.__module__}")
    return sibling
