"""Where two runs part: the first look from which a measure stays further apart than two seeds of one training."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_tricks.comparison.measured import FLAGS, Compared, MeasuredSeries
from lightning_tricks.probes.records.record import to_json
from lightning_tricks.report.words import number

_FAR = 1e6  # a factor over this is written as "gone"


@dataclasses.dataclass(frozen=True)
class Parting:
    """Where one measure of two runs parts.

    Args:
        measure: What is measured, such as ``"error signal"``.
        layer: The first layer, on the way on which the measure comes into being; None for the whole model.
        step: The look from which on they are apart.
        first, second: What was measured there of the first run and of the second.
        scale: How a distance is counted: ``"factor"``, ``"share"``, ``"guess"`` or ``"flag"``.
        apart: From which distance on runs part.
        place: Of the layer in the order of execution.

    >>> parting = Parting("error signal", "encoder.3", 40, 1e-3, 3e-2, "factor", 3.0)
    >>> print(parting, "|", parting.difference)
    at step 40 in encoder.3: error signal 30.0 x | 30.0 x
    """

    measure: str
    layer: str | None
    step: int
    first: float
    second: float
    scale: str
    apart: float
    place: int = 0

    @property
    def difference(self) -> str:
        """What the second run has of the first one's, in words."""
        if self.scale == "flag":
            return FLAGS[self.measure][bool(self.second)]
        if self.scale == "share":
            return f"{self.second - self.first:+.2f}"
        if not self.first or not math.isfinite(self.second / self.first) or abs(self.second / self.first) > _FAR:
            return f"{number(self.second)} for {number(self.first)}"
        ratio = self.second / self.first
        return f"{number(ratio)} x" if ratio > 0 else f"{number(self.second)} for {number(self.first)}"

    def __str__(self) -> str:
        where = f" in {f'layer {self.layer}' if self.layer.isdigit() else self.layer}" if self.layer else ""
        return f"at step {self.step}{where}: {f'{self.measure} ' if self.scale != 'flag' else ''}{self.difference}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        fields: dict[str, Any] = to_json(vars(self))
        return fields


def parting(
    measure: Compared, layer: str | None, one: MeasuredSeries, other: MeasuredSeries, guess: float
) -> Parting | None:
    """The first look from which on the two stay apart for so many looks, or for all where there are fewer at all.

    They are compared where either was looked at; the other one's value is taken between its looks. From a distance
    is taken what is ordinary from one look to the next: the smaller such change of the two, as what is to be found
    is a change of one of them alone.
    """
    steps = _common(one.steps, other.steps)
    if not len(steps):
        return None
    ours, their = (_at(steps, series, measure, guess) for series in (one, other))
    distance = their.values - ours.values
    slack = np.zeros(len(steps)) if measure.scale == "flag" else np.minimum(ours.change, their.change)
    slack = slack + ours.between + their.between
    beyond = np.where(np.abs(distance) > measure.threshold + slack, np.sign(distance), 0.0)
    held = min(measure.held, len(steps))
    for index in range(len(steps) - held + 1):
        if beyond[index] and (beyond[index : index + held] == beyond[index]).all():
            first, second = (_value(steps[index], series) for series in (one, other))
            return Parting(
                measure.name, layer, int(steps[index]), first, second, measure.scale, measure.apart, one.place
            )
    return None


def distances(
    steps: NDArray[np.int64], measure: Compared, one: MeasuredSeries, other: MeasuredSeries, guess: float
) -> NDArray[np.float64]:
    """Of the second run from the first one at some steps, on the scale of the measure; NaN where one has no look."""
    both = (steps >= max(one.steps[0], other.steps[0])) & (steps <= min(one.steps[-1], other.steps[-1]))
    apart = _at(steps, other, measure, guess).values - _at(steps, one, measure, guess).values
    return np.where(both, apart, np.nan)


@dataclasses.dataclass(frozen=True)
class _Looks:
    values: NDArray[np.float64]
    change: NDArray[np.float64]  # to the nearest look, on the scale of distances
    between: NDArray[np.float64]  # how far the two looks differ between which a value was taken


def _common(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """The steps at which either was looked at, from where both have begun to where one ends."""
    steps = np.union1d(one, other)
    return steps[(steps >= max(one[0], other[0])) & (steps <= min(one[-1], other[-1]))]


def _at(steps: NDArray[np.int64], series: MeasuredSeries, measure: Compared, guess: float) -> _Looks:
    scaled = np.array([measure.scaled(value, guess) for value in series.values])
    known = np.isfinite(scaled)
    if not known.any():
        empty = np.full(len(steps), np.nan)
        return _Looks(empty, empty, empty)
    own, scaled = series.steps[known], scaled[known]
    jumps = np.abs(np.diff(scaled))
    change = np.minimum(np.append(jumps, np.inf), np.insert(jumps, 0, np.inf)) if len(jumps) else np.zeros(1)
    values = np.interp(steps, own, scaled)
    right = np.clip(np.searchsorted(own, steps), 0, len(own) - 1)
    left = np.where(own[right] == steps, right, np.maximum(right - 1, 0))
    between = np.abs(scaled[right] - scaled[left])
    return _Looks(values, np.maximum(change[left], change[right]), between)


def _value(step: int, series: MeasuredSeries) -> float:
    """As measured where there was a look, else of the last look before."""
    return float(series.values[max(int(np.searchsorted(series.steps, step, side="right")) - 1, 0)])
