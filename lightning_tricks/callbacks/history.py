"""A list of snapshots that may run for weeks."""

from __future__ import annotations

from lightning_tricks.probes import Snapshot

WINDOW = 5  # the latest snapshots keep their sums per unit, which rules pool
MOST = 256  # above this, every second of the older snapshots is dropped


def append(history: list[Snapshot], snapshot: Snapshot) -> None:
    """Add a snapshot in place; a training that is taken up again at an earlier step overwrites what came after it."""
    while history and history[-1].step >= snapshot.step:
        history.pop()
    history.append(snapshot)
    if len(history) > WINDOW:
        history[-WINDOW - 1] = history[-WINDOW - 1].light()
    if len(history) > MOST:
        history[:] = [*thin(history[:-WINDOW]), *history[-WINDOW:]]


def thin(history: list[Snapshot]) -> list[Snapshot]:
    """The first snapshots, which show the start, and every second of the others."""
    start = 8
    return [*history[:start], *history[start::2]]
