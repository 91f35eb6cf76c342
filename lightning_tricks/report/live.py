"""How a training stands while it runs, in a notebook: one line below its cell, which is renewed at every look."""

from __future__ import annotations

import math
import sys
import uuid
from collections.abc import Iterator
from typing import Any

from lightning_tricks.diagnosis.diagnosis import Diagnosis, at
from lightning_tricks.diagnosis.history.progress import recent_loss
from lightning_tricks.diagnosis.registry import wording
from lightning_tricks.report.notebook import coloured
from lightning_tricks.report.table import Line
from lightning_tricks.report.way import Way
from lightning_tricks.report.words import number, rounded

_STATES = {"healthy": "healthy", "sick": "critical", "not_learning": "critical", "unknown": "info"}


def kernel() -> Any:
    """IPython's shell where a kernel runs, which can show more than text; None elsewhere, where nothing is imported."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return shell if getattr(shell, "kernel", None) is not None else None


class LiveView:
    """The line of one training; outside of a notebook it is none and costs nothing.

    >>> LiveView().update(Diagnosis())
    False
    """

    def __init__(self) -> None:
        self._shown: str | None = None  # by this id a notebook finds what it is to renew
        self._failed = False

    def update(self, diagnosis: Diagnosis) -> bool:
        """Show how it stands now; whether anybody sees it. A notebook that cannot show it is not asked again."""
        if self._failed or kernel() is None:
            return False
        try:
            from IPython.display import HTML, display, update_display

            shown = HTML(coloured(row(diagnosis)))
            if self._shown is None:
                self._shown = uuid.uuid4().hex
                display(shown, display_id=self._shown)
            else:
                update_display(shown, display_id=self._shown)
        except Exception:  # of another's display: no matter of the training
            self._failed = True
        return not self._failed


def row(diagnosis: Diagnosis) -> Iterator[Line]:
    """State, step and loss, in shares of the way where a guess is known; below it the first problem and what to do."""
    history = diagnosis.history
    state = diagnosis.verdict.partition(":")[0]
    parts = [state, f"step {history[-1].step}"] if history else [state]
    loss, way = recent_loss(history) if history else math.nan, Way.of(diagnosis)
    if not math.isnan(loss):
        parts.append(f"loss {number(loss)}")
        if way.known:
            parts.append(f"{rounded(max(way.share(loss), 0.0))} of the way from a guess")
    first = next((each for each in diagnosis.findings if each.rank), None)
    yield Line("  ".join(parts), _STATES[diagnosis.state], len(state))
    if first is not None:
        yield Line(f"  {first.severity}: {wording(first.problem).heading}{at(first.layer)}, since step {first.step}")
        if first.remedies:
            yield Line(f"  what to do: {first.remedies[0]}", "quiet")
