"""What is printed while the Trainer draws a progress bar: above it, so that neither erases the other."""

from __future__ import annotations

import sys
from typing import Any

from lightning_tricks._compat.messages import above_bars
from lightning_tricks._compat.trainer import set_progress_bar_entry
from lightning_tricks.diagnosis.diagnosis import Diagnosis, at
from lightning_tricks.diagnosis.registry import wording

_MOST = 40  # characters of a bar's entry: what rich and tqdm show of a line of 80 beside the rest


def show(trainer: Any, shown: Diagnosis | str) -> None:
    """Print a diagnosis, or a line, above the Trainer's progress bar where there is one."""
    progress = getattr(getattr(trainer, "progress_bar_callback", None), "progress", None)
    console = getattr(progress, "console", None)
    if console is not None:  # rich: it is the bar's console that knows how to print beside it
        console.print(shown, highlight=False, markup=False, soft_wrap=isinstance(shown, str))
        return
    with above_bars(sys.stdout):
        if isinstance(shown, Diagnosis):
            shown.show()
        else:
            print(shown)


def show_in_bar(trainer: Any, name: str, diagnosis: Diagnosis) -> None:
    """How it stands, as an entry of the Trainer's progress bar."""
    set_progress_bar_entry(trainer, name, in_few_words(diagnosis))


def in_few_words(diagnosis: Diagnosis) -> str:
    """The first problem and its layer, or that there is none.

    >>> in_few_words(Diagnosis())
    'no verdict yet'
    """
    if diagnosis.state in ("healthy", "unknown"):
        return "healthy so far" if diagnosis.healthy else "no verdict yet"
    first = next((each for each in diagnosis.findings if each.rank), diagnosis.findings[0])
    said = f"{wording(first.problem).heading}{at(first.layer)}"
    return said if len(said) <= _MOST else f"{said[: _MOST - 3]}..."
