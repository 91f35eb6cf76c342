"""Which tensors have values that can be counted."""

from __future__ import annotations

import torch
from torch import Tensor

_wrapped = getattr(torch._C._functorch, "is_functorch_wrapped_tensor", lambda tensor: False)


def unreadable(tensor: Tensor) -> str | None:
    """Why a tensor's values cannot be counted, or None."""
    if tensor.is_floating_point() and tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_nested):
        return "it runs inside a function transform (vmap, grad)" if _wrapped(tensor) else None
    if tensor.is_complex():
        return "its values are complex numbers"
    if tensor.is_meta:
        return "it is on the meta device and has no values"
    return "its values are a nested tensor" if tensor.is_nested else "its values are no real numbers in a dense tensor"
