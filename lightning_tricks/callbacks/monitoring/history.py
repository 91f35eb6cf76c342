"""A list of snapshots that may run for weeks."""

from __future__ import annotations

import dataclasses
import math

from lightning_tricks.probes import Snapshot

START = 8  # the first snapshots show the start and are kept for good
WINDOW = 5  # the latest snapshots keep their sums per unit, which rules pool
MOST = 256  # above this, those between are thinned, evenly over the steps


def append(history: list[Snapshot], snapshot: Snapshot) -> None:
    """Add a snapshot in place; a training that is taken up again at an earlier step overwrites what came after it."""
    while history and history[-1].step >= snapshot.step:
        history.pop()
    if history and math.isnan(snapshot.validation_loss) and not math.isnan(history[-1].validation_loss):
        snapshot = dataclasses.replace(snapshot, validation_loss=history[-1].validation_loss)
    history.append(snapshot)
    if len(history) > WINDOW:
        history[-WINDOW - 1] = history[-WINDOW - 1].light()
    if len(history) > MOST:
        del history[_most_dispensable(history)]


def validated(history: list[Snapshot], loss: float) -> None:
    """Note the loss of a validation that came after the latest snapshot; those that follow take it over."""
    if history:
        history[-1] = dataclasses.replace(history[-1], validation_loss=loss)


def _most_dispensable(history: list[Snapshot]) -> int:
    """The one whose neighbours are nearest to each other: without it the widest gap grows least."""
    between = range(START, len(history) - WINDOW)
    return min(between, key=lambda i: history[i + 1].step - history[i - 1].step)
