"""What a user is to read: warnings, and an object in a notebook, which asks it for ``_repr_html_``."""

from __future__ import annotations

import contextlib
import html
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

__all__ = ["STYLE", "ShownAsText", "above_bars", "preformatted", "warn"]

STYLE = "white-space:pre;overflow-x:auto;font-family:monospace;font-size:90%;line-height:1.35"
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


def preformatted(text: str) -> str:
    """Text that keeps its columns, and scrolls where it is wide; nothing in it is taken for HTML.

    >>> preformatted("a < b")[-14:]
    'a &lt; b</div>'
    """
    return f'<div style="{STYLE}">{html.escape(text)}</div>'


class ShownAsText:
    """Shown by a notebook as ``print`` shows it."""

    def _repr_html_(self) -> str:
        return preformatted(str(self))
