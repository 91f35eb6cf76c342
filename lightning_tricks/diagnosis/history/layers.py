"""The layers of a snapshot as the rules read them: which are judged, what feeds them, how large their weights are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis.history.persistence import Persistence, persistence
from lightning_tricks.probes import ActivationRecord, Snapshot, WeightedRecord

# RMS(w) sqrt(fan_in): torch's default has .58, LeCun's scheme 1, He's 1.4; a normal of std .02 over 768 inputs .55
ORDINARY_SCALE = (0.2, 5.0)
FAR_OFF = 4.0  # factor outside of these: no scheme draws such weights
ROUNDING = 1e-12  # share of an input's energy that rounding makes vary: a standard deviation of 1e-6 of its size
_Holds = Callable[[ActivationRecord | None], bool]


def hidden_activations(snapshot: Snapshot) -> list[ActivationRecord]:
    """Activations that further weights follow, without gates: the hidden layers.

    What stands behind the last weighted operation belongs to the output or the loss, and a sigmoid there is meant to
    saturate in the end. A softplus that is called as a function makes a scale, or a loss, positive.
    """
    last = max((record.order for record in snapshot.weighted), default=math.inf)  # none: only activations are looked at
    return [
        record
        for record in snapshot.activations
        if record.order < last and not record.gate and record.patterns and not _makes_positive(record)
    ]


def _makes_positive(record: ActivationRecord) -> bool:
    return properties_of(record.function).makes_positive and record.name.rpartition(".")[2].startswith(record.function)


def judged_activations(snapshot: Snapshot) -> list[ActivationRecord]:
    """The hidden layers that a training can do something about.

    Not those before which, their own weights included, all is frozen: no gradient goes there, and what only hurts
    training hurts nothing. A frozen layer behind trainable ones hands the gradient on and is judged as any other.
    """
    orders = {record.name: record.order for record in snapshot.weighted}
    weights = [(orders[r.layer], r.trainable) for r in snapshot.parameters if r.layer in orders]
    judged = []
    for record in hidden_activations(snapshot):
        before = [trainable for order, trainable in weights if order < record.order]
        if any(before) or not before or not math.isnan(record.error_signal):
            judged.append(record)
    return judged


def input_layer(snapshot: Snapshot) -> WeightedRecord | None:
    """The first weighted operation, unless an embedding or an activation comes before its input."""
    first = next(iter(snapshot.weighted), None)
    if first is None or math.isnan(first.input_mean) or any(a.order < first.order for a in snapshot.activations):
        return None
    return first


def varies(layer: WeightedRecord | None) -> bool:
    """Whether a layer's input differs from pattern to pattern; what is not known does."""
    return layer is None or not (layer.input_std == 0.0 or 1.0 - layer.mean_energy <= ROUNDING)


def layer_persistence(
    history: Sequence[Snapshot], name: str, holds: _Holds, *, from_start: bool = False
) -> Persistence | None:
    """The persistence of a problem of one activation."""
    return persistence(history, lambda snapshot: holds(snapshot.activation(name)), from_start=from_start)


def faulty_layers(
    history: Sequence[Snapshot], holds: _Holds
) -> Iterator[tuple[ActivationRecord, Persistence, str | None]]:
    """The judged layers in which a problem holds: the latest record, for how long, and the weights before it."""
    for record in judged_activations(history[-1]):
        found = layer_persistence(history, record.name, holds) if holds(record) else None
        if found is not None:
            yield record, found, fed_by(history[-1], record)


def weighted_before(snapshot: Snapshot, activation: ActivationRecord) -> WeightedRecord | None:
    """The last weighted operation before an activation: the layer whose pre-activation it takes."""
    before = [record for record in snapshot.weighted if record.order < activation.order]
    return before[-1] if before else None


def fed_by(snapshot: Snapshot, activation: ActivationRecord | None) -> str | None:
    """The name of the weighted layer before an activation."""
    before = None if activation is None else weighted_before(snapshot, activation)
    return None if before is None else before.name


def weight_scale(snapshot: Snapshot, layer: str | None) -> float | None:
    """RMS(w) sqrt(fan_in) of a weighted layer: the factor by which it scales the standard deviation of its input."""
    for record in snapshot.parameters:
        if layer is not None and record.layer == layer and record.fan_in and record.weight >= 0:
            return record.weight * math.sqrt(record.fan_in)
    return None


def is_tiny(scale: float | None, factor: float = 1.0) -> bool:
    """Whether weights are under an ordinary size by more than a factor; all zero is another problem."""
    return scale is not None and 0 < scale < ORDINARY_SCALE[0] / factor


def is_ordinary(scale: float | None, factor: float = 1.0) -> bool:
    """Whether weights of this RMS(w) sqrt(fan_in) come from some scheme, to a factor; None: it is not known.

    >>> is_ordinary(0.58), is_ordinary(0.01), is_ordinary(None)
    (True, False, False)
    """
    return scale is not None and ORDINARY_SCALE[0] / factor <= scale <= ORDINARY_SCALE[1] * factor
