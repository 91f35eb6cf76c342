"""What torch knows of a tensor beside its values, and of the transforms around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

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


def is_traced(tensor: Tensor) -> bool:
    """Whether it stands for values that a tracer, such as torch.export, does not have."""
    if type(tensor) is Tensor:
        return False
    return getattr(tensor, "fake_mode", None) is not None or type(tensor).__name__ == "FunctionalTensor"


def in_transform(tensor: Tensor) -> bool:
    """Whether a function transform (vmap, grad) has wrapped it; where torch does not tell, nothing is."""
    ask: Any = getattr(getattr(torch._C, "_functorch", None), "is_functorch_wrapped_tensor", None)
    if ask is None:
        say_once("layers inside vmap and grad transforms cannot be told from others")
        return False
    return bool(ask(tensor))


def transforms_are_active() -> bool:
    """Whether ``vmap``, ``grad``, ``jvp`` and their kin, or forward-mode differentiation, surround this call.

    True where torch does not tell: whoever asks has a way that is right under a transform as well.
    """
    under_func: Any = getattr(torch._C, "_are_functorch_transforms_active", None)
    level: Any = getattr(forward_ad, "_current_level", None)
    return under_func is None or level is None or bool(under_func()) or level >= 0
