"""The layers of a snapshot as the rules read them: which are judged, what feeds them, how large their weights are."""

from __future__ import annotations

import bisect
import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis.history.persistence import Persistence, persistences
from lightning_tricks.diagnosis.history.progress import weights
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.probes import ActivationRecord, Snapshot, WeightedRecord
from lightning_tricks.probes.records.activations import UNKNOWN

# RMS(w) sqrt(fan_in): torch's default has .58, LeCun's scheme 1, He's 1.4; a normal of std .02 over 768 inputs .55
ORDINARY_SCALE = (0.2, 5.0)
FAR_OFF = 4.0  # factor outside of these: no scheme draws such weights
ROUNDING = 1e-12  # share of an input's energy that rounding makes vary: a standard deviation of 1e-6 of its size
_order = operator.attrgetter("order")
_Those = Callable[[Sequence[ActivationRecord]], Sequence[ActivationRecord]]


@remembered
def hidden_activations(snapshot: Snapshot) -> list[ActivationRecord]:
    """Activations that further weights follow, without gates: the hidden layers.

    What stands behind the last weighted operation belongs to the output or the loss, and a sigmoid there is meant to
    saturate in the end. A softplus that is called as a function makes a scale, or a loss, positive.
    """
    return list(_hidden(snapshot))


def _hidden(snapshot: Snapshot) -> Iterator[ActivationRecord]:
    last = _in_order(snapshot)[-1].order if snapshot.weighted else math.inf  # none: only activations are looked at
    for record in snapshot.activations:
        if record.order < last and not record.gate and record.patterns and not _makes_positive(record):
            yield record


def _makes_positive(record: ActivationRecord) -> bool:
    positive = properties_of(record.function).makes_positive
    return positive and record.name.rpartition(".")[2].startswith(record.function)


@functools.cache
def names_of(those: _Those) -> Callable[[Snapshot], frozenset[str]]:
    """The names of those activations that a function chooses."""
    return remembered(lambda snapshot: frozenset([record.name for record in those(snapshot.activations)]))


@remembered
def judged_activations(snapshot: Snapshot) -> list[ActivationRecord]:
    """As :func:`judged`, in a list."""
    return list(judged(snapshot))


def judged(snapshot: Snapshot) -> Iterator[ActivationRecord]:
    """The hidden layers that a training can do something about.

    Not those before which, their own weights included, all is frozen: no gradient goes there, and what only hurts
    training hurts nothing. A frozen layer behind trainable ones hands the gradient on and is judged as any other. Nor
    what nobody knows as an activation: it may be a guard that is not meant to bend anything, as a clamp far outside.
    """
    known = (record for record in _hidden(snapshot) if record.function != UNKNOWN)
    front = _in_order(snapshot)[0].name if snapshot.weighted else None
    if front is None or any(record.layer == front and record.trainable for record in snapshot.parameters):
        yield from known  # before all weights are read
        return
    orders, used = {record.name: record.order for record in snapshot.weighted}, weights(snapshot)
    first = min((orders[r.layer] for r in used if r.layer in orders), default=math.inf)
    trained = min((orders[r.layer] for r in used if r.layer in orders and r.trainable), default=math.inf)
    yield from (r for r in known if r.order > trained or r.order <= first or not math.isnan(r.error_signal))


@remembered
def input_layer(snapshot: Snapshot) -> WeightedRecord | None:
    """The first weighted operation, unless an embedding or an activation comes before its input."""
    first = None if snapshot.partial else next(iter(snapshot.weighted), None)
    orders = [record.order for record in snapshot.activations]
    if first is None or math.isnan(first.input_mean) or min(orders, default=first.order) < first.order:
        return None
    return first


def varies(layer: WeightedRecord | None) -> bool:
    """Whether a layer's input differs from pattern to pattern; what is not known does."""
    return layer is None or not (layer.input_std == 0.0 or 1.0 - layer.mean_energy <= ROUNDING)


def faulty_layers(
    history: Sequence[Snapshot], those: _Those
) -> Iterator[tuple[ActivationRecord, Persistence, str | None]]:
    """The judged layers in which a problem holds: the latest record, for how long, and the weights before it."""
    found = persistences(history, names_of(those))
    for record in judged_activations(history[-1]) if found else ():
        if record.name in found:
            yield record, found[record.name], fed_by(history[-1], record)


@remembered
def _in_order(snapshot: Snapshot) -> list[WeightedRecord]:
    return sorted(snapshot.weighted, key=_order)


def weights_before(snapshot: Snapshot, activation: ActivationRecord | None) -> WeightedRecord | None:
    """The last weighted operation before an activation, whose pre-activation it takes."""
    if activation is None:
        return None
    place = bisect.bisect_left(_in_order(snapshot), activation.order, key=_order)
    return _in_order(snapshot)[place - 1] if place else None


def fed_by(snapshot: Snapshot, activation: ActivationRecord | None) -> str | None:
    """Its name."""
    before = weights_before(snapshot, activation)
    return None if before is None else before.name


def weight_scale(snapshot: Snapshot, layer: str | None) -> float | None:
    """RMS(w) sqrt(fan_in) of a weighted layer: the factor by which it scales the standard deviation of its input."""
    return _weight_scales(snapshot).get(layer)


@remembered
def _weight_scales(snapshot: Snapshot) -> dict[str | None, float]:
    known = [record for record in weights(snapshot) if record.layer is not None and record.fan_in]
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
