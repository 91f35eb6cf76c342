"""poor_initialization: pre-activations that leave the order of 1 at the start."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Criterion, Finding, Severity, Trait
from lightning_tricks.diagnosis.history import layers
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS, RECOVERY, Persistence, leading, persistence
from lightning_tricks.diagnosis.history.progress import guess_loss, is_stuck, last_at_start
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.diagnosis.rules.dead_units import dying
from lightning_tricks.probes import ActivationRecord, Snapshot, WeightedRecord


@thresholds
class LIMITS:
    """What is counted in steps is counted in updates, as RECOVERY is, whatever the batch.

    ``early`` is for a doctor that comes in later: 16 updates of .001 to .02 of the weights change their size by under
    a third.
    """

    faint: float = 0.03  # std of a pre-activation; healthy nets of a few layers start at .09 with torch's default
    loud: float = 30.0
    jump: float = 20.0  # factor between the pre-activations of two layers in a row (SageMaker: a variance ratio of 10)
    gentle: float = 1e-4  # a fading down to this, as of torch's default in eight layers, mends itself within RECOVERY
    alike: float = 3.0  # factor within which the sizes of two layers' weights come from one scheme
    patience: float = 2.0  # times RECOVERY: for weights of an ordinary size, such as logistic units by torch's default
    early: int = 16  # optimiser steps after which weights no longer show how they began
    shrinks: float = 0.7  # std over that of the layer before, from which on a fading is one ...
    healthy: float = 0.3  # ... that begins behind the layer before, where its pre-activations are this large
    over_one: float = 1.0  # std of a pre-activation from which on what follows is too large, not too small
    faded: float = 100.0  # std of the first pre-activation over the last: 20 ReLU layers by torch's default have 1e6


_STD, _JUMP = "pre-activation std", "std over that of the layer before"
_LAST, _FAINT = f"last {_STD}", f"{_STD} over the input's"  # where that is under 1


class Layer(NamedTuple):
    """A hidden layer: its weights with RMS(w) sqrt(fan_in), their ``scale``, and the units that they feed.

    ``std`` is that of the pre-activations without what no weights made smaller, which tells how signals fade.
    """

    weighted: WeightedRecord
    activation: ActivationRecord
    snapshot: Snapshot
    std: float

    @property
    def scale(self) -> float | None:
        return layers.weight_scale(self.snapshot, self.weighted.name)


class Fault(NamedTuple):
    """The layer at which it begins, what the pre-activations do there, whether there alone, and what shows it."""

    layer: Layer
    what: str
    sudden: bool
    criterion: Criterion


@rule(
    "poor_initialization",
    "start",
    "linearity saturation dead_units vanishing_gradient bias_shift learning_rate_too_low",
    clause="the weights begin at the wrong scale",
    table=(7, "scheme for the activation"),
    needs="layers",
)
def find_poor_initialization(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Pre-activations leave the order of 1 at the start, and stay there."""
    first = history[0]
    hidden = list(_hidden_layers(first)) if first.step <= LIMITS.early else []
    faulty = _first_faulty(hidden)
    if faulty is None:
        return
    place, name, related = faulty.layer, faulty.layer.weighted.name, faulty.layer.activation.name
    gain = place.weighted.std / place.weighted.input_std if place.weighted.input_std > 0 else math.nan
    evidence = {
        "pre-activation std": place.activation.std,
        "from first to last hidden layer": f"{hidden[0].activation.std:.2g} to {hidden[-1].activation.std:.2g}",
        "output std over input std": gain,
        "weight scale": place.scale,
        "at one layer": faulty.sudden,
        "activation layer": related,
    }
    explanation = (
        f"At the start the pre-activations {faulty.what} at this layer: its weights do not fit their number and the "
        f"{place.activation.function} units that follow. From there on signals and gradients change with every layer."
    )
    lost = last_at_start(history) if hidden[0].std > LIMITS.faded * hidden[-1].std else None
    found, severity = Persistence(first.step, 1, first), _severity(history, hidden, faulty)
    slow = severity == "info" and lost is not None and lost >= RECOVERY
    if slow:
        evidence["last step with the loss of the start"] = lost
        explanation += f" It learns, but slowly: up to step {lost} the loss had hardly left that of the first step."
    usual, why = layers.is_ordinary(place.scale), [faulty.criterion]
    kinds = {
        Trait.SLOW: slow,
        Trait.AT_ONE_LAYER: faulty.sudden,
        Trait.ORDINARY_WEIGHTS: usual,
        Trait.LOUD: place.activation.std > LIMITS.over_one,
    }
    traits = [trait for trait, so in kinds.items() if so]
    todo = remedies.of_a_start(first, place.activation.function, name, ordinary=usual or place.scale is None)
    yield found.finding("poor_initialization", name, severity, evidence, explanation, todo, why, traits, related)


def _severity(history: Sequence[Snapshot], hidden: Sequence[Layer], faulty: Fault) -> Severity:
    """A warning where it still is as at the start, which may not mend by itself; or where no scheme is so far off."""
    first, steps = history[0], history[-1].step - history[0].step
    scale, usual = faulty.layer.scale, layers.is_ordinary(faulty.layer.scale)
    if len(history) < HYSTERESIS:
        return "info"
    if faulty.sudden or (scale and not layers.is_ordinary(scale, layers.FAR_OFF)):
        begun = leading(history, _is_faulty)
        if begun is not None and begun.run >= HYSTERESIS and begun.at.step - begun.since >= LIMITS.early:
            return "warning"
    elif min(layer.std for layer in hidden) >= LIMITS.gentle and (
        steps < (LIMITS.patience if usual else 1.0) * RECOVERY or (usual and _may_learn(history))
    ):
        return "info"
    found = persistence(history, _is_faulty, from_start=True)
    return "warning" if found is not None and found.since == first.step else "info"


def _may_learn(history: Sequence[Snapshot]) -> bool:
    """By a loss of which it is known what a guess has: those of a game between networks do not fall."""
    return math.isnan(guess_loss(history[0])) or not is_stuck(history)


@remembered
def _is_faulty(snapshot: Snapshot) -> bool:
    return _first_sign(_hidden_layers(snapshot)) is not None


def _hidden_layers(snapshot: Snapshot) -> Iterator[Layer]:
    """The hidden layers up to where nothing tells of its own weights any more: behind dead units, or without input.

    What comes in faint, because the data are or because a softmax between two layers makes it so, is not the weights'
    doing, and left out of the standard deviations from there on.
    """
    last: Layer | None = None
    data = layers.input_layer(snapshot)
    base = 1.0 if data is None or not data.input_std > 0 else min(data.input_std, 1.0)
    for record in layers.judged(snapshot):
        weighted = layers.weights_before(snapshot, record)
        if not layers.varies(weighted):
            break
        if weighted is not None and record.std >= 0:
            if last is not None and _made_faint(snapshot, last, record, base):
                base = record.std / last.std  # as if nothing had been between
            last = Layer(weighted, record, snapshot, record.std / base)
            yield last
        if dying([record]):
            break


def _made_faint(snapshot: Snapshot, before: Layer, record: ActivationRecord, base: float) -> bool:
    """Whether the signal shrinks by a jump between two layers while all weights between them keep its size."""
    if not 0 < record.std / base < before.std / LIMITS.jump:
        return False
    between = [w for w in snapshot.weighted if before.activation.order < w.order < record.order]
    return all(layers.is_ordinary(w.std / w.input_std if w.input_std > 0 else None) for w in between)


def _first_faulty(hidden: Sequence[Layer]) -> Fault | None:
    sign = _first_sign(hidden)
    if sign is None:
        return None
    layer, why = sign
    if why.name == _JUMP:
        first, verb = _first_alike(hidden, layer), "shrink" if why.comparison == "<" else "grow"
        what = f"{verb} suddenly" if first is layer else f"{verb} from layer to layer, beginning"
        return Fault(first, what, first is layer, why if first is layer else _shown_at(layer, why))
    if why.comparison == "<":
        return Fault(_origin(hidden, layer), "fade away", False, _shown_at(layer, why))
    if why.name == _LAST:
        return Fault(hidden[0], "grow from layer to layer, beginning", False, _shown_at(layer, why))
    return Fault(layer, "are far too large", True, why)


def _shown_at(layer: Layer, why: Criterion) -> Criterion:
    """It begins at one layer and shows at another."""
    return dataclasses.replace(why, name=f"{why.name} at {layer.weighted.name}")


def _first_sign(hidden: Iterable[Layer]) -> tuple[Layer, Criterion] | None:
    """The first layer whose pre-activations are out of order, and how; where that begins is for _first_faulty."""
    before: Layer | None = None
    for layer in hidden:
        factor = layer.std / before.std if before is not None and before.std > 0 else 1.0
        if not 1.0 / LIMITS.jump <= factor <= LIMITS.jump:
            shrinks = factor < 1.0
            bound = 1.0 / LIMITS.jump if shrinks else LIMITS.jump
            return layer, Criterion(_JUMP, factor, "<" if shrinks else ">", bound)
        if layer.std < LIMITS.faint:
            return layer, Criterion(_FAINT, layer.std, "<", LIMITS.faint)
        loud, gain = layer.activation.std, layer.weighted.std / max(layer.weighted.input_std, 1e-30)
        if loud > LIMITS.loud and gain > LIMITS.jump:
            return layer, Criterion(_STD, loud, ">", LIMITS.loud)
        before = layer
    if before is not None and before.activation.std > LIMITS.loud:
        return before, Criterion(_LAST, before.activation.std, ">", LIMITS.loud)
    return None


def _first_alike(hidden: Sequence[Layer], jump: Layer) -> Layer:
    """The first layer whose weights are as far from an ordinary size as those at a jump: then it is no single layer."""
    if not jump.scale or layers.is_ordinary(jump.scale):
        return jump
    factors = ((layer, layer.scale / jump.scale) for layer in hidden if layer.scale is not None)
    return next((layer for layer, factor in factors if 1.0 / LIMITS.alike <= factor <= LIMITS.alike), jump)


def _origin(hidden: Sequence[Layer], faint: Layer) -> Layer:
    """Where a fading that takes several layers begins: the first layer after which it only shrinks."""
    index = hidden.index(faint)
    while index > 0 and hidden[index].std < LIMITS.shrinks * hidden[index - 1].std:
        index -= 1
    return hidden[min(index + 1, len(hidden) - 1)] if hidden[index].std > LIMITS.healthy else hidden[index]
