"""A doctor that judges at every look says what one would that sees the history for the first time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lightning_tricks.diagnosis import find
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.loss_and_norm import LossRecord
from lightning_tricks.probes.records.record import StepRecord
from lightning_tricks.watch import selection

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


@pytest.mark.parametrize("name", ["weights too small", "weights too large", "always on", "shifted", "cut", "dead"])
def test_one_more_look_reads_no_more_records_after_many_looks_than_after_few(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How often a number of a layer or a parameter is read, in a sick training that stays as it is."""
    *first, last = unseen(SICK[name].history())
    kept: list[Snapshot] = []
    reads: dict[int, int] = {}
    for look in range(160):
        snapshot = first[look] if look < len(first) else dataclasses.replace(last, step=last.step + look)
        selection.append(kept, snapshot)
        if look in (38, 158):
            find(kept)
        if look in (39, 159):
            counted = Reads()
            with monkeypatch.context() as patch:
                patch.setattr(StepRecord, "__getattribute__", counted.read)
                find(kept)
            reads[look] = counted.number
    assert 0 < reads[159] <= 1.1 * reads[39]  # a thinned history has a few looks more or less


class Reads:
    """Counts the reads of records; a step has few losses."""

    def __init__(self) -> None:
        self.number = 0

    @property
    def read(self) -> Callable[[StepRecord, str], Any]:
        def read(record: StepRecord, name: str) -> Any:
            self.number += type(record) is not LossRecord
            return object.__getattribute__(record, name)

        return read
