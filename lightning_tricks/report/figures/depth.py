"""The layers of a history by depth, and their measures as arrays."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_tricks.diagnosis.history.error_signal import ErrorSignalByLayer
from lightning_tricks.probes import ActivationRecord, Snapshot, WeightedRecord
from lightning_tricks.report.figures.style import VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Layer = ActivationRecord | WeightedRecord
Ladder = Callable[[Snapshot], list[Layer]]
Values = NDArray[np.float64]
_EQUAL = 1e-2  # of numbers that are one, but for the patterns that each is counted over


def trunk(snapshot: Snapshot) -> list[Layer]:
    """The ladder of pre-activations: every activation but gates, and the weights of the output, by order of execution.

    A model without activations is shown by its weighted operations.
    """
    activations: list[Layer] = [r for r in snapshot.activations if not r.gate] or list(snapshot.activations)
    if not activations:
        return sorted(snapshot.weighted, key=_order)
    output = [max(snapshot.weighted, key=_order)] if snapshot.weighted else []
    last = max(record.order for record in activations)
    return sorted([*activations, *(r for r in output if r.order > last)], key=_order)


def way_back(snapshot: Snapshot) -> list[Layer]:
    """The ladder of error signals: every weighted operation that received one; all of them where none did."""
    heard = [record for record in snapshot.weighted if not math.isnan(record.error_signal)]
    return sorted(heard or snapshot.weighted, key=_order)


def names(history: Sequence[Snapshot], ladder: Ladder) -> list[str]:
    """The names along the depth axis: those of the snapshot that saw most, then what only others saw."""
    if not history:
        return []
    most = max(history, key=lambda snapshot: len(ladder(snapshot)))
    return list(dict.fromkeys(record.name for snapshot in [most, *history] for record in ladder(snapshot)))


def measure(snapshot: Snapshot, ladder: Ladder, layers: Sequence[str], field: str) -> Values:
    """One measure of the named layers; NaN where it does not apply or is infinite."""
    by_name = {record.name: record for record in ladder(snapshot)}
    return _finite([getattr(by_name.get(name), field, math.nan) for name in layers])


def error_signals(snapshot: Snapshot, layers: Sequence[str]) -> Values:
    """Norm of the error signal over a layer's whole output, over that at the last layer, as the rules judge it.

    The RMS alone would show a cliff behind every pooling: an early convolution spreads one signal over many positions.
    """
    relative = ErrorSignalByLayer.of(snapshot).relative
    return _finite([relative.get(name, math.nan) for name in layers])


def is_plain(snapshot: Snapshot) -> bool:
    """Whether each weighted operation is given what one activation makes of the one before, and nothing else.

    Told by exact numbers: the activation takes the mean and the spread of what the weights gave, the next weights its
    share of mean energy. Branches, sums, norms and pooling give others; a straight line says nothing of those.
    """
    weighted = sorted(snapshot.weighted, key=_order)
    pairs = list(itertools.pairwise(weighted))
    return len(pairs) > 1 and all(_hands_on(snapshot, one, next_one) for one, next_one in pairs)


def _hands_on(snapshot: Snapshot, one: WeightedRecord, next_one: WeightedRecord) -> bool:
    between = [r for r in snapshot.activations if one.order < r.order < next_one.order and not r.gate]
    if len(between) != 1:
        return False
    taken = [(one.mean, between[0].mean), (one.std, between[0].std)]
    taken += [] if next_one.dropout else [(between[0].mean_energy, next_one.mean_energy)]
    return all(math.isclose(a, b, rel_tol=_EQUAL, abs_tol=1e-6) for a, b in taken)


def weight_gradients(snapshot: Snapshot, layers: Sequence[str]) -> Values:
    """RMS gradient of the weight of each named layer; NaN where there is none."""
    by_layer = {record.layer: record.gradient for record in snapshot.parameters if record.layer}
    return _finite([by_layer.get(name, math.nan) for name in layers])


def _finite(numbers: Iterable[float]) -> Values:
    values = np.array(list(numbers), np.float64)
    values[~np.isfinite(values)] = np.nan
    return values


def _order(record: Layer) -> int:
    return record.order


def positive(values: Values) -> Values:
    """The same for a log axis: NaN where it is zero."""
    return np.where(values > 0, values, np.nan)


def spread_out(history: Sequence[Snapshot], most: int) -> list[Snapshot]:
    """At most so many snapshots, the first and the last among them, evenly over the list."""
    if len(history) <= most:
        return list(history)
    return [history[round(float(i))] for i in np.linspace(0, len(history) - 1, most)]


def mark_nonfinite(axes: Axes, snapshot: Snapshot, layers: Sequence[str]) -> None:
    """A shade over layers with NaN or Inf, which have no number to draw."""
    records: list[Layer] = [*snapshot.activations, *snapshot.weighted]
    sick = {record.name for record in records if record.nonfinite}
    at = [i for i, name in enumerate(layers) if name in sick]
    mark(axes, at, VERMILLION, f"NaN or Inf at step {snapshot.step}")


def mark(axes: Axes, positions: Iterable[int], colour: str, label: str) -> None:
    """A shade over some layers, with one entry in the legend."""
    for k, i in enumerate(positions):
        axes.axvspan(i - 0.5, i + 0.5, color=colour, alpha=0.18, lw=0, label=label if k == 0 else None)


@dataclasses.dataclass(frozen=True)
class Slope:
    """A straight line through log10 of a measure over depth.

    >>> fit = Slope.of(np.array([1e-3, 1e-2, np.nan, 1.0]))
    >>> round(fit.per_layer, 6), round(float(fit.at(2)), 6)
    (1.0, 0.1)
    """

    per_layer: float
    start: float

    @classmethod
    def of(cls, values: Values) -> Slope | None:
        """The least-squares line; None with fewer than two numbers over zero."""
        known = np.flatnonzero(np.isfinite(values) & (values > 0))
        if known.size < 2:
            return None
        slope, start = np.polyfit(known, np.log10(values[known]), 1)
        return cls(float(slope), float(start))

    def at(self, depth: Any) -> Any:
        return 10.0 ** (self.start + self.per_layer * np.asarray(depth, np.float64))
