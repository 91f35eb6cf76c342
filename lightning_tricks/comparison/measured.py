"""What is compared of two runs: each measure as numbers over the steps, on a scale on which two seeds differ little."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightning_tricks.diagnosis.history.progress import guess_loss
from lightning_tricks.probes import ActivationRecord, Snapshot, WeightedRecord

Scale = Literal["factor", "share", "guess", "flag"]
Entry = tuple[str | None, int, float]  # a layer, its place in the order of execution, the value
FLAGS = {"NaN/Inf": ("no NaN or Inf any more", "NaN or Inf"), "updated": ("not updated", "updated")}
_LEAST = 1e-30  # a factor of 0 is one of this


@dataclasses.dataclass(frozen=True)
class Compared:
    """A measure of two runs.

    Args:
        name: What it is called.
        scale: How a distance is counted: ``"factor"`` (as a ratio), ``"share"`` (as a difference), ``"guess"`` (as a
            difference in losses of a guess), ``"flag"`` (there or not).
        apart: From which distance on the runs part: what two seeds of one healthy training stay under. Of a
            factor it is the ratio.
        values: Of a snapshot.
        backward: Whether it comes into being from the last layer to the first.
        held: For how many looks in a row they have to be apart, as a finding has to hold; NaN counts at once.
    """

    name: str
    scale: Scale
    apart: float
    values: Callable[[Snapshot], Iterator[Entry]]
    backward: bool = False
    held: int = 3

    def scaled(self, value: float, guess: float) -> float:
        """On the scale on which distances are differences."""
        if self.scale == "factor":
            return math.log(max(abs(value), _LEAST)) if math.isfinite(value) else math.nan
        return value / guess if self.scale == "guess" else value

    @property
    def threshold(self) -> float:
        return math.log(self.apart) if self.scale == "factor" else self.apart


@dataclasses.dataclass(frozen=True)
class MeasuredSeries:
    """A measure of one layer over the looks of a run."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    place: int


def series_of(history: Sequence[Snapshot], measure: Compared) -> dict[str | None, MeasuredSeries]:
    """By layer; without the looks at which it was not measured."""
    found: dict[str | None, list[tuple[int, float, int]]] = {}
    for snapshot in history:
        for layer, place, value in measure.values(snapshot):
            if not math.isnan(value):
                found.setdefault(layer, []).append((snapshot.step, value, place))
    return {
        layer: MeasuredSeries(
            np.array([step for step, _, _ in rows]), np.array([value for _, value, _ in rows]), rows[0][2]
        )
        for layer, rows in found.items()
    }  # fmt: skip


def scale_of_losses(history: Sequence[Snapshot]) -> float:
    """What a guess loses, else what the first look lost; 1 where neither is known."""
    for value in (guess_loss(history[0]), abs(history[0].loss)):
        if value > 0 and math.isfinite(value):
            return value
    return 1.0


def _activations(measure: str) -> Callable[[Snapshot], Iterator[Entry]]:
    def values(snapshot: Snapshot) -> Iterator[Entry]:
        for record in snapshot.activations:
            if not record.gate and not record.nonfinite:
                yield record.name, record.order, getattr(record, measure)

    return values


def _saturation(snapshot: Snapshot) -> Iterator[Entry]:
    """But of rectifiers, whose flat side is where they are not active."""
    active = {record.name for record in snapshot.activations if not math.isnan(record.activity)}
    yield from (entry for entry in _activations("saturation")(snapshot) if entry[0] not in active)


def _calls(snapshot: Snapshot) -> list[WeightedRecord | ActivationRecord]:
    return [*snapshot.weighted, *snapshot.activations]


def _spread(snapshot: Snapshot) -> Iterator[Entry]:
    for record in _calls(snapshot):
        if not record.nonfinite:
            yield record.name, record.order, record.std


def _error_signal(snapshot: Snapshot) -> Iterator[Entry]:
    """Over that at the last layer: how large the loss is shows there, and is no matter of the layers before it."""
    layers = [record for record in snapshot.weighted if math.isfinite(record.error_signal)]
    last = layers[-1].error_signal if layers else 0.0
    if last > 0:
        yield from ((record.name, record.order, record.error_signal / last) for record in layers[:-1])


def _parameters(measure: str) -> Callable[[Snapshot], Iterator[Entry]]:
    """Of weights; biases begin at 0 and are small numbers for long."""

    def values(snapshot: Snapshot) -> Iterator[Entry]:
        order = {record.name: record.order for record in snapshot.weighted}
        for place, record in enumerate(snapshot.parameters):
            if len(record.shape) > 1 or (not record.shape and not record.name.endswith("bias")):
                yield record.name, order.get(record.layer or "", place), getattr(record, measure)

    return values


def _nonfinite(snapshot: Snapshot) -> Iterator[Entry]:
    for record in _calls(snapshot):
        yield record.name, record.order, float(record.nonfinite)


def _updated(snapshot: Snapshot) -> Iterator[Entry]:
    """Nothing where no optimiser is known."""
    if any(not math.isnan(record.update) for record in snapshot.parameters):
        order = {record.name: record.order for record in snapshot.weighted}
        for place, record in enumerate(snapshot.parameters):
            yield record.name, order.get(record.layer or "", place), float(record.update > 0)


def _whole(measure: str) -> Callable[[Snapshot], Iterator[Entry]]:
    return lambda snapshot: iter([(None, 0, getattr(snapshot, measure))])


# The order in which they come into being at one layer: of two that part there at one step the first is the cause.
# Thresholds: 54 pairs of seeds of 18 healthy trainings of the clinic (dense, convolutional, residual, recurrent and
# attention networks, 240 steps) stayed under the number behind each, as `tests/benchmarks/two_seeds.py` measures it.
LAYERS = (
    Compared("NaN/Inf", "flag", 0.5, _nonfinite, held=1),
    Compared("weights", "factor", 1.5, _parameters("weight")),  # 1.25
    Compared("std", "factor", 2.5, _spread),  # 2.02
    Compared("linearity", "share", 0.2, _activations("linearity")),  # 0.139
    Compared("saturation", "share", 0.2, _saturation),  # 0.050
    Compared("activity", "share", 0.25, _activations("activity")),  # 0.157
    Compared("dead units", "share", 0.3, _activations("dead_share")),  # 0.229
    Compared("error signal", "factor", 2.5, _error_signal, backward=True),  # 1.68
    Compared("updated", "flag", 0.5, _updated, backward=True),
    Compared("update ratio", "factor", 6.0, _parameters("update_ratio"), backward=True),  # 4.68
)
WHOLE = (
    Compared("learning rate", "factor", 1.2, _whole("learning_rate")),  # set by a person or a schedule: no noise
    Compared("loss", "guess", 0.4, _whole("loss")),  # 0.266
    Compared("validation loss", "guess", 0.4, _whole("validation_loss")),  # as the loss, of which it is the calmer one
)
MEASURES = (*LAYERS, *WHOLE)
