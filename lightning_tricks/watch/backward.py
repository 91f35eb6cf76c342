"""Every backward pass of this process is told to who asks: there is no hook of torch's for it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import torch

__all__ = ["BackwardListener", "hear_backward"]


class BackwardListener(Protocol):
    """Told of every call of ``backward``, of a tensor's method as well as of torch's function."""

    def before_backward(self, losses: Any, *given: Any, **more: Any) -> None:
        """What goes backward now, as it was given."""

    def after_backward(self) -> None:
        """It went through."""


_listeners: list[BackwardListener] = []
_end: Callable[[], None] | None = None


def hear_backward(listener: BackwardListener) -> Callable[[], None]:
    """Tell a listener of every backward pass; what is returned ends that, and with the last one nothing is left."""
    global _end
    if _end is None:
        _end = _replace()
    _listeners.append(listener)
    return functools.partial(_remove, listener)


def _remove(listener: BackwardListener) -> None:
    global _end
    if listener in _listeners:
        _listeners.remove(listener)
    if not _listeners and _end is not None:
        _end()
        _end = None


def _replace() -> Callable[[], None]:
    own, listeners = torch.autograd.backward, [_listeners]  # without a list it only passes calls on

    @functools.wraps(own)
    def backward(*args: Any, **kwargs: Any) -> None:
        told = [] if torch.compiler.is_compiling() else [each for some in listeners for each in some]
        for listener in told:
            listener.before_backward(*args, **kwargs)
        own(*args, **kwargs)
        for listener in told:
            listener.after_backward()

    def end() -> None:
        listeners.clear()
        if torch.autograd.backward is backward:  # else somebody else's stands above it
            torch.autograd.backward = own

    torch.autograd.backward = backward
    return end
