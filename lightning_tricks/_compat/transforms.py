"""Transforms of torch.func and forward-mode differentiation, under which a tensor is not what it seems."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad

__all__ = ["transforms_are_active"]


def transforms_are_active() -> bool:
    """Whether ``vmap``, ``grad``, ``jvp`` and their kin, or forward-mode differentiation, surround this call.

    True where torch does not tell: whoever asks has a way that is right under a transform as well.
    """
    under_func: Any = getattr(torch._C, "_are_functorch_transforms_active", None)
    level: Any = getattr(forward_ad, "_current_level", None)
    return under_func is None or level is None or bool(under_func()) or level >= 0
