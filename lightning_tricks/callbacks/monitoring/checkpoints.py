"""What the monitors of a Trainer leave in its checkpoints: one history for all of them, under a key of their own.

It stands beside the states of the callbacks, not among them: there each monitor would write the same history again, and
two monitors with equal arguments would have one key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from lightning_tricks._compat.lightning import rank_zero_warn
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.packed import pack, prepare, unpack
from lightning_tricks.probes.watch.error_guard import ErrorGuard

KEY = "lightning_tricks"  # in a checkpoint
LATEST = 50  # looks of one monitor between two of another


class Restorable(Protocol):
    """A monitor as a checkpoint sees it."""

    history: list[Snapshot]

    @property
    def state_key(self) -> str:
        """Its class and its arguments; equal ones are told apart by their order."""

    def own_state(self) -> dict[str, Any]:
        """What it has to keep beside its history, as plain data."""

    def restore(self, history: list[Snapshot], state: Mapping[str, Any]) -> None:
        """Take up a history, and what ``own_state`` gave."""


def state_of(monitors: Sequence[Restorable]) -> dict[str, Any]:
    """Plain data and tensors, from which ``restore`` makes the histories again."""
    own = [{"key": monitor.state_key, "state": monitor.own_state()} for monitor in monitors]
    return {"monitors": own, "histories": pack([monitor.history for monitor in monitors])}


def restore(monitors: Sequence[Restorable], state: Mapping[str, Any]) -> None:
    """Give every monitor the history of the one with its arguments, in their order; others keep theirs."""
    saved = list(zip(state["monitors"], unpack(state["histories"]), strict=True))
    for monitor in monitors:
        for index, (own, history) in enumerate(saved):
            if own["key"] == monitor.state_key:
                monitor.restore(history, own["state"])
                del saved[index]
                break


def pack_latest(monitors: Sequence[Restorable]) -> None:
    """Pack what the latest looks showed: a checkpoint then is written at once, however many looks came before.

    What cannot be packed is nothing to a training that is not saved yet: who saves it is told.
    """
    with ErrorGuard(lambda error: None):
        prepare([[*monitor.history[:1], *monitor.history[1:][-LATEST:]] for monitor in monitors])


def save_to(checkpoint: dict[str, Any], monitors: Sequence[Restorable]) -> None:
    """Write the histories; a checkpoint without them is better than none."""

    def say(error: Exception) -> None:
        rank_zero_warn(f"this checkpoint goes without the monitors' history: {type(error).__name__}: {error}")

    with ErrorGuard(say):
        checkpoint[KEY] = state_of(monitors)


def read_or_begin_anew(monitors: Sequence[Restorable], read: Callable[[], None]) -> None:
    """Read a state; where that fails every monitor begins with an empty history, and one warning says why."""

    def say(error: Exception) -> None:
        for monitor in monitors:
            monitor.restore([], {})
        rank_zero_warn(
            "the monitors' history in this checkpoint cannot be read, as it is damaged or of another version: they "
            f"begin a new one ({type(error).__name__}: {error})"
        )

    with ErrorGuard(say):
        read()
