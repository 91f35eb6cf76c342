"""What torch knows of a tensor beside its values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def version(tensor: Any) -> int:
    """How often the values have been overwritten; always 0 where torch does not count."""
    return 0 if tensor.is_inference() else getattr(tensor, "_version", 0)


def base(tensor: Tensor) -> Tensor | None:
    """The tensor that this one is a view of; None if it is none, or where torch does not tell."""
    return getattr(tensor, "_base", None)


def is_view(tensor: Tensor) -> bool:
    """Whether it is a view; where torch does not tell, whether its elements may be a part of others'."""
    ask = getattr(tensor, "_is_view", None)
    if ask is not None:
        return bool(ask())
    return base(tensor) is not None or tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()


def in_transform(tensor: Tensor) -> bool:
    """Whether a function transform (vmap, grad) has wrapped it; where torch does not tell, nothing is."""
    ask: Any = getattr(getattr(torch._C, "_functorch", None), "is_functorch_wrapped_tensor", None)
    return ask is not None and bool(ask(tensor))


def takes_scaled_gradients(optimizer: Any) -> bool:
    """Whether an optimiser unscales gradients by itself, so that they are still scaled when its step begins."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))
