"""What torch knows of a tensor beside its values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_tricks._compat.torch_functions import say_once


def version(tensor: Any) -> int:
    """How often the values have been overwritten; always 0 where torch does not count."""
    if tensor.is_inference():
        return 0
    try:
        return tensor._version
    except AttributeError:
        say_once("a tensor that was overwritten counts as what it was before")
        return 0


def base(tensor: Tensor) -> Tensor | None:
    """The tensor that this one is a view of; None if it is none, or where torch does not tell."""
    try:
        return tensor._base
    except AttributeError:
        say_once("a view of a parameter is not known as that parameter")
        return None


def is_view(tensor: Tensor) -> bool:
    """Whether it is a view; where torch does not tell, whether its elements may be a part of others'."""
    if not hasattr(tensor, "_is_view"):
        say_once("an in-place activation of a whole view has no error signal")
        return base(tensor) is not None or tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()
    return tensor._is_view()


def in_transform(tensor: Tensor) -> bool:
    """Whether a function transform (vmap, grad) has wrapped it; where torch does not tell, nothing is."""
    ask: Any = getattr(getattr(torch._C, "_functorch", None), "is_functorch_wrapped_tensor", None)
    if ask is None:
        say_once("layers inside vmap and grad transforms cannot be told from others")
        return False
    return bool(ask(tensor))


def takes_scaled_gradients(optimizer: Any) -> bool:
    """Whether an optimiser unscales gradients by itself, so that they are still scaled when its step begins."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))
