"""Warnings as a user is to read them."""

from __future__ import annotations

import logging
import warnings
from typing import Any

__all__ = ["warn"]

_log = logging.getLogger("lightning_tricks")


def warn(message: str, stacklevel: int = 2) -> None:
    """A warning without a line of this package before it.

    Where warnings are errors it is logged instead: nothing that is said here may end a training.
    """
    shown, warnings.formatwarning = warnings.formatwarning, _without_place
    try:
        warnings.warn(message, stacklevel=stacklevel + 1)
    except Warning:
        _log.warning(message)
    finally:
        warnings.formatwarning = shown


def _without_place(message: Warning | str, *place: Any, **more: Any) -> str:
    return f"lightning_tricks: {message}\n"
