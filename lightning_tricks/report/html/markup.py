"""HTML from Python: what comes in as a plain string is escaped, what was made here is not."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from typing import Any

_VOID = frozenset(("meta", "br", "hr", "input", "link", "col", "img"))
_SPELT = {"class_": "class", "for_": "for", "view_box": "viewBox", "preserve": "preserveAspectRatio"}


class Markup(str):
    """A string that is HTML."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """An element; children that are lists are taken one by one, those that are None left out.

    >>> tag("p", "a < b", tag("b", "!"), class_="note", hidden=True, title=None)
    '<p class="note" hidden>a &lt; b<b>!</b></p>'
    """
    given = ((_SPELT.get(key, key.replace("_", "-")), value) for key, value in attributes.items())
    written = "".join(_attribute(key, value) for key, value in given if value is not None and value is not False)
    return Markup(f"<{name}{written}>" if name in _VOID else f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[Any], between: str = "") -> Markup:
    """Several pieces behind each other, each escaped unless it is markup."""
    return Markup(between.join(_pieces(children)))


def number(value: float, digits: int = 4) -> str:
    """A coordinate: as few characters as say it.

    >>> number(3.0), number(0.123456), number(-0.00004)
    ('3', '.123', '0')
    """
    if not math.isfinite(value):
        return "0"
    text = f"{value:.{max(digits - 1, 0)}f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))
    return {"-0": "0", "": "0"}.get(
        text, text.replace("-0.", "-.") if text[:2] == "-0" else text.removeprefix("0") or "0"
    )


def _pieces(children: Iterable[Any]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, (list, tuple)):
            yield from _pieces(child)
        else:
            yield html.escape(str(child), quote=False)


def _attribute(key: str, value: Any) -> str:
    return f" {key}" if value is True else f' {key}="{html.escape(str(value))}"'
