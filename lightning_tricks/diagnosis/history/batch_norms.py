"""The calls of batch norms over the probed steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.loss_and_norm import NormalizationRecord

FOLLOWED = 3.0  # times 1 / momentum: then 95 % of the running statistics are measured ones


def in_order(snapshot: Snapshot) -> list[NormalizationRecord]:
    """The calls of batch norms in the order of execution."""
    return sorted(snapshot.normalizations, key=lambda record: record.order)


def calls_of(history: Sequence[Snapshot], name: str) -> list[tuple[Snapshot, NormalizationRecord]]:
    """The calls of one name, each with its snapshot."""
    return [(snapshot, record) for snapshot in history for record in _by_name(snapshot).get(name, ())]


@remembered
def _by_name(snapshot: Snapshot) -> dict[str, list[NormalizationRecord]]:
    found: dict[str, list[NormalizationRecord]] = {}
    for record in snapshot.normalizations:
        found.setdefault(record.name, []).append(record)
    return found


def repeats(record: NormalizationRecord, first: NormalizationRecord) -> bool:
    """Whether it is a later call of the module whose first call this is."""
    name, _, count = record.name.rpartition("_")
    return name == first.name and count.isdecimal()


def called_twice(snapshot: Snapshot, name: str) -> bool:
    """Whether the module runs more than once a step: its k-th call is named ``name_k``."""
    names = {record.name for record in snapshot.normalizations}
    return f"{name}_2" in names or name.rpartition("_")[0] in names


def misses(record: NormalizationRecord) -> float:
    """How far the means lie from the running ones, without the noise of the batch, in running standard deviations."""
    return math.sqrt(max(record.mean_gap**2 - 1.0 / max(record.samples, 1), 0.0))


def steps_to_follow(record: NormalizationRecord) -> float:
    """Until 95 % of the running statistics are measured ones; with a momentum of 0 they never are."""
    return FOLLOWED / record.momentum if record.momentum > 0 else math.inf
