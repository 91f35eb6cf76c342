"""How a notebook shows an object: IPython asks it for ``_repr_html_``."""

from __future__ import annotations

import html

STYLE = "white-space:pre;overflow-x:auto;font-family:monospace;font-size:90%;line-height:1.35"


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
