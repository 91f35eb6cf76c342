"""Calls of torch functions: what keeps function modes out of a block, what runs now, and torch's own second names."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch


def unseen() -> AbstractContextManager[None]:
    """A block whose calls no function mode and no tensor subclass sees; where torch has none, they do see them."""
    disable = getattr(torch._C, "DisableTorchFunction", None)
    return contextlib.nullcontext() if disable is None else disable()
