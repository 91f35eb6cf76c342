"""What of a training is probed and kept: which steps, which layers, which snapshots."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from lightning_tricks.probes import Snapshot, ValidationRecord

START = 8  # the first snapshots show the start and are kept for good
WINDOW = 5  # the latest snapshots keep their sums per unit, which rules pool
MOST = 256  # above this, those between are thinned, evenly over the steps


def is_probed(step: int, every_n_steps: int) -> bool:
    """Steps 0, 1, 2, 4, 8, ... up to ``every_n_steps``, then every ``every_n_steps``: the beginning matters most.

    A Trainer writes its own row one step before each multiple. What was seen does not wait for that: it goes to the
    loggers at once, in one row of its own step, and to ``callback_metrics``. To look where the Trainer logs would save
    those rows alone, and part from the steps of stored histories.

    >>> [step for step in range(200) if is_probed(step, 50)]
    [0, 1, 2, 4, 8, 16, 32, 50, 100, 150]
    """
    if step % every_n_steps == 0:
        return True
    return step < every_n_steps and step & (step - 1) == 0


def as_globs(name: str, value: Any) -> tuple[str, ...]:
    """One glob or several, in a list of any kind, such as OmegaConf's, as a tuple.

    >>> as_globs("layers", "encoder.*")
    ('encoder.*',)
    """
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else ()
    if not found or not all(isinstance(glob, str) and glob for glob in found):
        raise ValueError(f"{name} must be a glob such as 'encoder.*' or a list of them, got {value!r}")
    return found


def no_layer_matches(snapshot: Snapshot, layers: Any) -> str:
    """What to tell a user of whose globs one matches nothing; empty where all do."""
    globs = as_globs("layers", layers)
    found = {record.name for record in (*snapshot.records(), *snapshot.normalizations)}
    lost = [glob for glob in globs if not any(fnmatchcase(name, glob) for name in found)]
    if not lost:
        return ""
    names = list(dict.fromkeys(record.name.rpartition(".")[0] for record in snapshot.parameters))
    shown = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
    near = difflib.get_close_matches(lost[0], sorted(found), 1)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    given = layers if len(lost) == len(globs) else lost[0] if len(lost) == 1 else lost
    return f"no layer matches layers={given!r}{meant}; those with parameters are {shown or 'none'}"


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
        index = _most_dispensable(history)
        if history[index].validation is not None:
            history[index + 1] = dataclasses.replace(history[index + 1], validation=history[index].validation)
        del history[index]


def set_validation_loss(history: list[Snapshot], loss: float) -> None:
    """Enter the loss of a validation that came after the latest snapshot; those that follow take it over."""
    if history:
        history[-1] = dataclasses.replace(history[-1], validation_loss=loss)


def set_validation_data(history: list[Snapshot], record: ValidationRecord) -> None:
    """Enter what the first validation gave the network; of a training that is taken up again the first one stays."""
    if history and all(snapshot.validation is None for snapshot in history):
        history[-1] = dataclasses.replace(history[-1], validation=record)


def _most_dispensable(history: list[Snapshot]) -> int:
    """The one whose neighbours are nearest to each other: without it the widest gap grows least."""
    between = range(START, len(history) - WINDOW)
    return min(between, key=lambda i: history[i + 1].step - history[i - 1].step)
