"""What is printed while the Trainer draws a progress bar: above it, so that neither erases the other."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from lightning_tricks._compat.messages import above_bars
from lightning_tricks._compat.trainer import set_progress_bar_entry
from lightning_tricks.diagnosis.diagnosis import Diagnosis, at
from lightning_tricks.diagnosis.registry import wording

_MOST = 40  # characters of a bar's entry
_REST = 69  # characters that the rest of a bar takes, as rich and tqdm draw it with its name before the entry
_LEAST = 11


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
    """How it stands, as an entry of the Trainer's progress bar, in as many words as a line of it has room for."""
    console = getattr(getattr(getattr(trainer, "progress_bar_callback", None), "progress", None), "console", None)
    width = getattr(console, "width", None) or shutil.get_terminal_size().columns
    room = min(max(width - _REST, _LEAST), _MOST)
    set_progress_bar_entry(trainer, name, in_few_words(diagnosis, room))


def in_few_words(diagnosis: Diagnosis, most: int = _MOST) -> str:
    """The first problem and its layer, or that there is none, in at most so many characters.

    >>> in_few_words(Diagnosis()), in_few_words(Diagnosis(), 11)
    ('no verdict yet', 'no verdict')
    """
    if diagnosis.state in ("healthy", "unknown"):
        words = ("healthy so far", "healthy") if diagnosis.healthy else ("no verdict yet", "no verdict")
        return next((said for said in words if len(said) <= most), words[-1])
    first = next((each for each in diagnosis.findings if each.rank), diagnosis.findings[0])
    heading = wording(first.problem).heading
    said = f"{heading}{at(first.layer)}"
    if len(said) <= most:
        return said
    if most - len(heading) > len(" at ..."):
        return f"{said[: most - 3]}..."
    return heading if len(heading) <= most else "sick"
