"""Warnings as a user is to read them."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

__all__ = ["above_bars", "warn"]

_log = logging.getLogger("lightning_tricks")


def warn(message: str, stacklevel: int = 2) -> None:
    """A warning without a line of this package before it.

    Where warnings are errors it is logged instead: nothing that is said here may end a training.
    """
    shown, warnings.formatwarning = warnings.formatwarning, _without_place
    try:
        with above_bars(sys.stderr):
            warnings.warn(message, stacklevel=stacklevel + 1)
    except Warning:
        _log.warning(message)
    finally:
        warnings.formatwarning = shown


@contextlib.contextmanager
def above_bars(stream: Any) -> Iterator[None]:
    """A block whose output to a stream goes above the bars of tqdm, if any, instead of being glued to them."""
    tqdm: Any = getattr(sys.modules.get("tqdm"), "tqdm", None)
    with tqdm.external_write_mode(file=stream) if hasattr(tqdm, "external_write_mode") else contextlib.nullcontext():
        yield


def _without_place(message: Warning | str, *place: Any, **more: Any) -> str:
    return f"lightning_tricks: {message}\n"
