"""What a notebook shows of a record: its text, coloured by severity where it is a diagnosis."""

from __future__ import annotations

import html
from collections.abc import Iterable

from lightning_tricks._compat.messages import STYLE, preformatted
from lightning_tricks.diagnosis.diagnosis import Diagnosis, view
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.snapshot import shown_by
from lightning_tricks.report.table import WIDE, Line, layers_text, lines_of

_COLOURS = {"critical": "#c62828", "warning": "#b26a00", "info": "#00838f", "healthy": "#2e7d32", "quiet": "#777"}


@view("notebook")
def of_diagnosis(diagnosis: Diagnosis) -> str:
    """The table, as ``print`` shows it, in colour."""
    return coloured(lines_of(diagnosis, WIDE))


@shown_by
def of_snapshot(snapshot: Snapshot) -> str:
    """Its layers as a table."""
    return preformatted(f"{snapshot!r}\n{layers_text(Diagnosis(history=[snapshot]))}".rstrip())


def coloured(lines: Iterable[Line]) -> str:
    """Lines of text that keep their columns, the marked ones in the colour of their severity.

    >>> coloured([Line("a < b", "info", 1)]).count("&lt;"), coloured([Line("plain")])[-11:]
    (1, 'plain</div>')
    """
    return f'<div style="{STYLE}">' + "\n".join(map(_marked, lines)) + "</div>"


def _marked(line: Line) -> str:
    if not line.style:
        return html.escape(line.text)
    until = len(line.text) if line.emphasis is None else line.emphasis
    bold = "" if line.style == "quiet" else ";font-weight:bold"
    begin = f'<span style="color:{_COLOURS[line.style]}{bold}">' if until else ""
    return f"{begin}{html.escape(line.text[:until])}{'</span>' if until else ''}{html.escape(line.text[until:])}"
