"""The functions of torch that a mapped step calls: which they are, and those that torch.func.vmap maps wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_tricks._compat import functorch
from lightning_tricks._compat.functorch import is_mapped, on_all
from lightning_tricks._compat.trees import tree_flatten, tree_unflatten
from lightning_tricks.ensemble.mapping.losses import cross_entropy_of_all


class NotMappableError(RuntimeError):
    """A member's training step cannot run for all members at once; the message says why."""


class MappedFunctions(TorchFunctionMode):
    """Inside of a mapped call: notes every function that is called, and computes some of them in another way.

    Attributes:
        calls: The functions of the step, in order: the way it took. What was proven of one way says nothing of another.
    """

    def __init__(self, *, stacked: bool = False) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self._own = {**RIGHT, F.cross_entropy: cross_entropy_of_all} if stacked else RIGHT

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.append(func)
        own = self._own.get(func)
        if own is not None:
            result = own(*args, **kwargs) if kwargs else own(*args)
            if result is not None:
                return result
        return func(*args, **kwargs) if kwargs else func(*args)


def embedding(
    indices: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor | None:
    """``F.embedding`` by a gather: torch's batching rule keeps the padding row of the first member only.

    With that rule an index beyond the table reads the next member's; here it raises.
    """
    if not is_mapped(weight):
        return None
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise NotMappableError("it calls embedding with max_norm, scale_grad_by_freq or sparse")
    places = indices.reshape(-1, 1).expand(-1, weight.shape[1])
    found = weight.gather(0, places.long()).view(*indices.shape, weight.shape[1])
    if padding_idx is None:
        return found
    padding = padding_idx if padding_idx >= 0 else weight.shape[0] + padding_idx
    return torch.where((indices == padding).unsqueeze(-1), found.detach(), found)


def _embedding(
    weight: Tensor,
    indices: Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor | None:
    """``torch.embedding``, where -1 is no padding."""
    padding = None if padding_idx < 0 else padding_idx
    return embedding(indices, weight, padding, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)


def row_by_row(func: Callable[..., Any], *, when: Callable[..., bool] = lambda *args, **kwargs: True) -> Any:
    """A function that is called for one member after the other inside of a mapped call."""

    def call(*args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        places = [place for place, leaf in enumerate(leaves) if is_mapped(leaf)]
        if not places or not when(*args, **kwargs):
            return None
        if not functorch.AVAILABLE:
            raise NotMappableError(f"it calls {func.__name__}, which torch.func.vmap maps wrongly")

        def whole(*mapped: Tensor) -> Tensor:
            rows = []
            for own in zip(*mapped, strict=True):
                for place, row in zip(places, own, strict=True):
                    leaves[place] = row
                some, named = tree_unflatten(leaves, spec)
                rows.append(func(*some, **named))
            return torch.stack(rows)

        return on_all(whole, *(leaves[place] for place in places))

    return call


def _alone(*args: Any, **kwargs: Any) -> bool:
    return len(args) == 1 and not kwargs


# Wrong for some values only, so that a first batch need not show it: found by comparing every function that torch's own
# tests know, mapped and looped, on ties, zeros and NaN. The gradient of the largest number of all goes to all that are
# as large; mapped, to one of them.
RIGHT: dict[Any, Callable[..., Any]] = {
    F.embedding: embedding,
    torch.embedding: _embedding,
    torch.ops.aten.embedding: _embedding,
    torch.ops.aten.embedding.default: _embedding,
    **{
        getattr(owner, name): row_by_row(getattr(owner, name), when=_alone)
        for owner in (torch, Tensor)
        for name in ("max", "min", "median", "nanmedian")
    },
}
