"""The record of the training loop goes through JSON and merges."""

from __future__ import annotations

import json
import math

from lightning_tricks.probes import LooseWeight, Snapshot, TrainingRecord

RECORD = TrainingRecord(
    2,
    3,
    backwards=1,
    steps=1,
    rates=(0.1, math.inf),
    first_rates=(0.2, 0.1),
    foreign=2,
    foreign_shapes=((3, 4), ()),
    loose=(LooseWeight("a[0].weight", "a", (3, 4), 0.5, True),),
    fresh=("net.0.weight",),
    stale=4,
)


def test_through_json() -> None:
    stored = json.loads(json.dumps(Snapshot(3, training=RECORD).to_dict()))
    restored = Snapshot.from_dict(stored).training
    assert restored is not None
    assert math.isnan(restored.rates[1])
    assert restored.rate == 0.1
    assert {**vars(restored), "rates": RECORD.rates} == vars(RECORD)
    stored["training"]["of a later version"] = 1
    del stored["training"]["stale"]
    later = Snapshot.from_dict(stored).training
    assert later is not None
    assert later.stale == 0


def test_older_histories_have_none() -> None:
    stored = Snapshot(3).to_dict()
    del stored["training"]
    assert Snapshot.from_dict(stored).training is None


def test_merging_keeps_what_any_rank_saw() -> None:
    other = TrainingRecord(2, 1, backwards=2, stale=1, rates=(0.1, 0.3))
    merged = Snapshot(3, training=RECORD).merge(Snapshot(3, training=other)).training
    assert merged is not None
    assert (merged.forwards, merged.backwards, merged.stale, merged.rates) == (3, 2, 4, (0.1, 0.3))
    assert Snapshot(3, training=RECORD).merge(Snapshot(3)).training is RECORD
    assert Snapshot(3).merge(Snapshot(3, training=RECORD)).training is RECORD
