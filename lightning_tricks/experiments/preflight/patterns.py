"""Which axis of a tensor counts the patterns of a batch, and a batch in which some of them are exchanged."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from lightning_tricks.model.batches import tensors_in

SEED = 0  # of a generator of our own, that says which pattern takes the place of which


class NotAskedError(Exception):
    """Why an experiment cannot be made with these arguments."""


class AllAlikeError(NotAskedError):
    """The patterns of the batch are all the same."""


@dataclass(frozen=True)
class Collation:
    """How a batch was put together.

    Args:
        size: The number of patterns; None where that cannot be told.
        first: Whether the patterns lie along the first axis of all of its tensors.
        tensors: Its tensors.
        collated: Whether its loader put it together of single patterns: which of them meet in a batch means nothing.
    """

    size: int | None
    first: bool
    tensors: tuple[Tensor, ...]
    collated: bool = False

    @classmethod
    def of(cls, batch: Any, loader: Any = None) -> Collation:
        """The collation of a batch, with what its loader says of itself.

        >>> Collation.of((torch.zeros(7, 5, 2), torch.zeros(5))).size  # time first
        5
        """
        tensors = tuple(tensor for tensor in tensors_in(batch) if tensor.dim())
        if not tensors:
            return cls(None, False, ())
        loader = getattr(loader, "data", loader)
        firsts, stated = {tensor.shape[0] for tensor in tensors}, getattr(loader, "batch_size", None)
        if getattr(loader, "collate_fn", None) is default_collate and len(firsts) == 1:
            return cls(firsts.pop(), True, tensors, True)
        common = set.intersection(*(set(tensor.shape) for tensor in tensors))
        if stated in common:
            return cls(stated, False, tensors)
        if len(common) == 1:
            return cls(common.pop(), False, tensors)
        plain = len(firsts) == 1 and not any(map(_may_be_sequences, tensors))
        return cls(firsts.pop() if plain else None, plain, tensors)

    def axis(self, tensor: Tensor) -> int | None:
        """The axis of the patterns in a tensor of this step; None where it has none.

        Raises:
            NotAskedError: There are several.
        """
        axes = [axis for axis, length in enumerate(tensor.shape) if length == self.size]
        if len(axes) <= 1:
            return axes[0] if axes else None
        for whole in self.tensors if self.first else ():
            same = tensor.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
            along = [axis for axis in axes if tensor.stride(axis) == whole.stride(0)]
            if same and whole.shape[0] == self.size and len(along) == 1:
                return along[0]
        if _may_be_sequences(tensor):
            raise NotAskedError(f"two axes of {list(tensor.shape)} are as long as the batch")
        return 0


def _may_be_sequences(tensor: Tensor) -> bool:
    return tensor.dim() == 3 or (tensor.dim() == 2 and not tensor.is_floating_point())


@dataclass(frozen=True)
class Exchange:
    """Which patterns of a batch stay, and which take the place of the others.

    Args:
        size: The number of patterns.
        kept: Those that stay: the first and the last, as a misread axis may show at one end only.
        others: Those that are replaced.
        sources: For every pattern the one that takes its place, drawn with repetition: what does not depend on the
            order of patterns, such as attention over a set, would not notice a permutation.
    """

    size: int
    kept: tuple[int, ...]
    others: tuple[int, ...]
    sources: tuple[int, ...]

    @classmethod
    def of(cls, size: int) -> Exchange:
        """Of a batch of so many patterns.

        >>> exchange = Exchange.of(6)
        >>> exchange.kept, exchange.others, all(exchange.sources[i] != i for i in exchange.others)
        ((0, 5), (1, 2, 3, 4), True)
        """
        kept = (0, size - 1) if size > 2 else (0,)
        others = tuple(range(1, size - 1)) if size > 2 else tuple(range(1, size))
        steps = torch.randint(1, max(size, 2), (size,), generator=torch.Generator().manual_seed(SEED)).tolist()
        sources = [(i + step) % size if i in others else i for i, step in enumerate(steps)]
        return cls(size, kept, others, tuple(sources))

    def index(self, which: tuple[int, ...], device: torch.device) -> Tensor:
        return _index(which, device)

    def applied(self, tensor: Tensor, axis: int) -> Tensor:
        """The tensor with the others exchanged along this axis."""
        return tensor.index_select(axis, self.index(self.sources, tensor.device))


@functools.lru_cache(maxsize=16)
def _index(which: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(which, device=device, dtype=torch.long)


def mapped(tree: Any, function: Any) -> Any:
    """Arguments with every tensor replaced by what a function makes of it.

    Raises:
        NotAskedError: Something in it is of a kind that a call may change for good.
    """
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        copied = tree.copy()  # an OrderedDict stays one
        copied.update((key, mapped(value, function)) for key, value in tree.items())
        return copied
    if type(tree) in (list, tuple):
        return type(tree)(mapped(value, function) for value in tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(mapped(value, function) for value in tree))
    if tree is None or isinstance(tree, _IMMUTABLE):
        return tree
    raise NotAskedError(f"it is called with a {type(tree).__name__}, which it may change")


_IMMUTABLE = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, slice, type)
