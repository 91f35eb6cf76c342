"""A doctor that judges at every look says what one would that sees the history for the first time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from lightning_tricks.callbacks.monitoring import selection
from lightning_tricks.diagnosis import find
from lightning_tricks.probes import Snapshot

from .sick import SICK


def told(history: Sequence[Snapshot]) -> list[dict[str, Any]]:
    return [finding.to_dict() for finding in find(history)]


def unseen(history: Sequence[Snapshot]) -> list[Snapshot]:
    """The same snapshots, of which nothing was worked out before."""
    return [dataclasses.replace(snapshot) for snapshot in history]


@pytest.mark.parametrize("name", SICK)
def test_at_every_look_as_from_scratch(name: str) -> None:
    kept: list[Snapshot] = []
    for snapshot in unseen(SICK[name].history()):
        selection.append(kept, snapshot)
        assert told(kept) == told(unseen(kept))


def test_after_a_validation_and_after_a_step_back_as_from_scratch() -> None:
    kept = unseen(SICK["by heart"].history())
    told(kept)
    selection.set_validation_loss(kept, 0.5)
    assert told(kept) == told(unseen(kept))
    for snapshot in unseen(SICK["steps too large"].history())[-4:]:  # taken up again at an earlier step, and ruined
        selection.append(kept, dataclasses.replace(snapshot, step=snapshot.step // 2))
        assert told(kept) == told(unseen(kept))
