"""Every parameter that can be trained over the probed steps: what used it, and whether a gradient ever came."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightning_tricks.diagnosis.history.persistence import Persistence
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.probes import ParameterRecord, Snapshot, WeightedRecord

_BY_HAND = 1e-6  # relative change of the weights' root mean square; rounding in float32 stays below


@dataclass(frozen=True)
class Trace:
    """One parameter over the probed steps in which a gradient could have come to it."""

    name: str
    record: ParameterRecord  # the latest
    snapshots: tuple[Snapshot, ...]  # in which a backward pass ran and, where known, its own optimiser stepped
    use: WeightedRecord | None  # the first that used it, or its module, with gradients if any did; None: it never ran
    silent: bool  # no gradient ever came to it, nor to what it computes
    erased: bool  # none was there when an optimiser made its step

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0] or self.name

    @property
    def layer(self) -> str:
        return self.module if self.use is None else self.use.name

    @property
    def order(self) -> float:
        return math.inf if self.use is None else self.use.order

    @property
    def persistence(self) -> Persistence:
        return Persistence.over(self.snapshots)


def traces_of(snapshots: Sequence[Snapshot]) -> list[Trace]:
    """What can be trained and does not change by hand, as an average or a copy of other weights does."""
    seen: dict[str, list[tuple[Snapshot, ParameterRecord, WeightedRecord | None, bool]]] = {}
    for snapshot in snapshots:
        used_by, stepped = _users(snapshot), has_stepped(snapshot)
        for r in snapshot.parameters:
            counts = r.trainable and not (stepped and r.optimized and math.isnan(r.update))
            seen.setdefault(r.name, []).append((snapshot, r, used_by(r.name), counts))
    traces, moved = list[Trace](), set[str]()  # modules of which a weight changes by hand
    for name, looks in seen.items():
        records, latest = [record for _, record, _, _ in looks], looks[-1][1]
        counting = [snapshot for snapshot, _, _, counts in looks if counts]
        ran = [use for _, _, use, counts in looks if counts and use is not None]
        use = next((use for use in ran if use.with_gradient), ran[0] if ran else None)
        erased = all(map(_is_erased, records))
        sizes = [r.weight for r in records if erased and r.layer == latest.layer and r.weight > 0]
        by_hand = bool(sizes) and max(sizes) > min(sizes) * (1.0 + _BY_HAND)
        # A loss that went backward depends on it: an optimiser that steps inside of the pass leaves no gradient.
        silent = erased and not any(r.reached for r in records)
        if by_hand:
            moved.add(name.rpartition(".")[0])
        elif counting and latest.trainable:
            traces.append(Trace(name, latest, tuple(counting), use, silent, erased))
    # A bias before batch norm stays as it is where its weight is trained out of sight.
    return [trace for trace in traces if not trace.silent or trace.name.rpartition(".")[0] not in moved]


@remembered
def lacks(snapshot: Snapshot) -> bool:
    """Whether any parameter that can be trained is without a gradient or an optimiser in this step."""
    trainable = [record for record in snapshot.parameters if record.trainable]
    return not trainable or any(not record.optimized or _is_erased(record) for record in trainable)


def _is_erased(record: ParameterRecord) -> bool:
    return math.isnan(record.gradient) and not record.nonfinite_gradient and not record.update > 0


@remembered
def _users(snapshot: Snapshot) -> Callable[[str], WeightedRecord | None]:
    """Which weighted record used a parameter, as its weight or by the module that both are of."""
    direct: dict[str, WeightedRecord] = {}
    for record in snapshot.weighted:
        if record.weight is not None and not (record.weight in direct and direct[record.weight].with_gradient):
            direct[record.weight] = record
    modules = {name.rpartition(".")[0]: record for name, record in reversed(direct.items())}
    modules |= {record.name: record for record in reversed(snapshot.weighted)}

    def user(name: str) -> WeightedRecord | None:
        path = name.rpartition(".")[0]
        return direct.get(name) or modules.get(path) or modules.get(path.partition(".parametrizations.")[0])

    return user


@remembered
def went_back(snapshot: Snapshot) -> bool:
    training = snapshot.training
    if training is not None and training.detached and not training.backwards:
        return False
    return math.isfinite(snapshot.loss) or any(not math.isnan(record.gradient) for record in snapshot.parameters)


@remembered
def has_stepped(snapshot: Snapshot) -> bool:
    return any(not math.isnan(record.update) for record in snapshot.parameters)
