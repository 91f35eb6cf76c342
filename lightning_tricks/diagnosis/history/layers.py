"""The layers of a snapshot as the rules read them: which are judged, what feeds them, how large their weights are."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis.history.persistence import Persistence, persistences
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.probes import ActivationRecord, Snapshot, WeightedRecord
from lightning_tricks.probes.records.activations import UNKNOWN

# RMS(w) sqrt(fan_in): torch's default has .58, LeCun's scheme 1, He's 1.4; a normal of std .02 over 768 inputs .55
ORDINARY_SCALE = (0.2, 5.0)
FAR_OFF = 4.0  # factor outside of these: no scheme draws such weights
ROUNDING = 1e-12  # share of an input's energy that rounding makes vary: a standard deviation of 1e-6 of its size
_order = operator.attrgetter("order")
_Holds = Callable[[ActivationRecord], bool]


@remembered
def hidden_activations(snapshot: Snapshot) -> list[ActivationRecord]:
    """Activations that further weights follow, without gates: the hidden layers.

    What stands behind the last weighted operation belongs to the output or the loss, and a sigmoid there is meant to
    saturate in the end. A softplus that is called as a function makes a scale, or a loss, positive.
    """
    last = max(map(_order, snapshot.weighted), default=math.inf)  # none: only activations are looked at
    hidden = [record for record in snapshot.activations if record.order < last and not record.gate and record.patterns]
    called = [record.name.rpartition(".")[2].startswith(record.function) for record in hidden]  # by no module
    pairs = zip(hidden, called, strict=True)
    return [record for record, called in pairs if not (called and properties_of(record.function).makes_positive)]


@functools.cache
def activations_that(holds: _Holds) -> Callable[[Snapshot], frozenset[str]]:
    """The names of the activations for which a function of their records holds."""
    return remembered(lambda snapshot: frozenset([record.name for record in snapshot.activations if holds(record)]))


@remembered
def judged_activations(snapshot: Snapshot) -> list[ActivationRecord]:
    """The hidden layers that a training can do something about.

    Not those before which, their own weights included, all is frozen: no gradient goes there, and what only hurts
    training hurts nothing. A frozen layer behind trainable ones hands the gradient on and is judged as any other. Nor
    what nobody knows as an activation: it may be a guard that is not meant to bend anything, as a clamp far outside.
    """
    orders = {record.name: record.order for record in snapshot.weighted}
    first = min((orders[r.layer] for r in snapshot.parameters if r.layer in orders), default=math.inf)
    trained = min((orders[r.layer] for r in snapshot.parameters if r.layer in orders and r.trainable), default=math.inf)
    return [
        record
        for record in hidden_activations(snapshot)
        if record.function != UNKNOWN
        and (record.order > trained or record.order <= first or not math.isnan(record.error_signal))
    ]


@remembered
def input_layer(snapshot: Snapshot) -> WeightedRecord | None:
    """The first weighted operation, unless an embedding or an activation comes before its input."""
    first = None if snapshot.partial else next(iter(snapshot.weighted), None)
    if first is None or math.isnan(first.input_mean) or any(a.order < first.order for a in snapshot.activations):
        return None
    return first


def varies(layer: WeightedRecord | None) -> bool:
    """Whether a layer's input differs from pattern to pattern; what is not known does."""
    return layer is None or not (layer.input_std == 0.0 or 1.0 - layer.mean_energy <= ROUNDING)


def faulty_layers(
    history: Sequence[Snapshot], holds: _Holds
) -> Iterator[tuple[ActivationRecord, Persistence, str | None]]:
    """The judged layers in which a problem holds: the latest record, for how long, and the weights before it."""
    found = persistences(history, activations_that(holds))
    for record in judged_activations(history[-1]) if found else ():
        if record.name in found:
            yield record, found[record.name], fed_by(history[-1], record)


@remembered
def weights_before(snapshot: Snapshot) -> dict[int, WeightedRecord]:
    """The last weighted operation before every activation, whose pre-activation it takes, by the activation's order."""
    weighted = sorted(snapshot.weighted, key=_order)
    orders, own = list(map(_order, weighted)), list(map(_order, snapshot.activations))
    places = np.searchsorted(orders, own).tolist()
    return {order: weighted[place - 1] for order, place in zip(own, places, strict=True) if place}


def fed_by(snapshot: Snapshot, activation: ActivationRecord | None) -> str | None:
    """The name of the weighted layer before an activation."""
    before = None if activation is None else weights_before(snapshot).get(activation.order)
    return None if before is None else before.name


def weight_scale(snapshot: Snapshot, layer: str | None) -> float | None:
    """RMS(w) sqrt(fan_in) of a weighted layer: the factor by which it scales the standard deviation of its input."""
    return _weight_scales(snapshot).get(layer)


@remembered
def _weight_scales(snapshot: Snapshot) -> dict[str | None, float]:
    known = [record for record in snapshot.parameters if record.layer is not None and record.fan_in]
    return {r.layer: r.weight * math.sqrt(r.fan_in) for r in reversed(known) if r.weight >= 0}


def is_tiny(scale: float | None, factor: float = 1.0) -> bool:
    """Whether weights are under an ordinary size by more than a factor; all zero is another problem."""
    return scale is not None and 0 < scale < ORDINARY_SCALE[0] / factor


def is_ordinary(scale: float | None, factor: float = 1.0) -> bool:
    """Whether weights of this RMS(w) sqrt(fan_in) come from some scheme, to a factor; None: it is not known.

    >>> is_ordinary(0.58), is_ordinary(0.01), is_ordinary(None)
    (True, False, False)
    """
    return scale is not None and ORDINARY_SCALE[0] / factor <= scale <= ORDINARY_SCALE[1] * factor
