"""What was worked out of a snapshot stays with it, and goes with it."""

from __future__ import annotations

import copy
import dataclasses
import pickle

from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.probes import Snapshot

asked: list[int] = []


@remembered
def step_of(snapshot: Snapshot) -> int:
    asked.append(snapshot.step)
    return snapshot.step


@remembered
def unknown(snapshot: Snapshot) -> None:
    asked.append(snapshot.step)


def test_a_snapshot_is_asked_once() -> None:
    asked.clear()
    one, other = Snapshot(1), Snapshot(2)
    assert [step_of(one), step_of(one), step_of(other), step_of(one)] == [1, 1, 2, 1]
    assert asked == [1, 2]


def test_none_is_remembered_too_and_two_functions_do_not_mix() -> None:
    asked.clear()
    snapshot = Snapshot(4)
    assert step_of(snapshot) == 4
    assert unknown(snapshot) is None
    assert unknown(snapshot) is None
    assert asked == [4, 4]


def test_what_takes_the_place_of_a_snapshot_is_asked_anew() -> None:
    asked.clear()
    snapshot = Snapshot(5)
    step_of(snapshot)
    assert step_of(dataclasses.replace(snapshot, step=6)) == 6
    step_of(snapshot.light())
    assert asked == [5, 6, 5]


def test_it_is_no_part_of_the_snapshot() -> None:
    snapshot = Snapshot(7)
    plain = pickle.dumps(snapshot)
    step_of(snapshot)
    assert snapshot == Snapshot(7)
    assert pickle.dumps(snapshot) == plain
    asked.clear()
    assert step_of(copy.deepcopy(snapshot)) == 7
    assert asked == [7]
