"""bias_shift: inputs of one sign move all weights of a unit together, and the unit's mean runs away."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Trait
from lightning_tricks.diagnosis.history.layers import input_layer
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS, Persistence, persistences
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import ParameterRecord, Snapshot, WeightedRecord

CENTRE = Remedy("centre_input", "centre what the layer receives: subtract its mean, or normalise it")


@thresholds
class LIMITS:
    """What is counted in steps is counted in updates: each moves the means anew, whatever the batch and the length.

    Of 657 healthy trainings 10 began by such shifts, all with Adam or RMSprop, whose first updates are the largest
    of all: over by step 8 with RMSprop, by 50 with Adam.
    """

    patterns: int = 8  # the mean of n patterns has 1/n of their energy by chance: experts that are given 2 reach .99
    alike: float = 0.6  # mean energy of the input; .32 behind a rectified centred Gaussian, 1: all patterns look alike
    one_sided: float = 0.96  # a mean of 4.9 standard deviations: healthy layers pass it briefly, bottlenecks reach .965
    nearly: float = 0.85  # mean energy of an input that is one-sided where an update throws the means as well
    together: float = 3.0  # update coherence in units of 1/sqrt(fan_in), what independent entries give ...
    coherent: float = 0.9  # ... or this, where that comes first
    drift: float = 1.0  # std of a by which ONE update moves a unit's mean; a logistic layer begins at .84, input .948
    noticed: float = 0.2  # the same where the input stays one-sided: every unit depends on one direction of its weights
    runaway: float = 5.0
    lasting: int = 7  # optimiser steps, twice as many where neither is extreme: the first of RMSprop, Adam are largest
    faded: float = 0.03  # std of the pre-activation under which every shift is large: there the fading is the problem


@rule(
    "bias_shift",
    "units",
    "dead_units saturation linearity learning_rate_too_high",
    "bias shift (bias problem)",
    clause="each update shifts the units' means",
    order=3,
    first_only=True,
    table=(6, "zero-mean units, batch norm"),
    needs="layers",
)
def find_bias_shift(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """One update moves a unit's mean by a good part of its standard deviation."""
    if _begins_faded(history):
        return  # before all layers of all looks are read
    everywhere = persistences(history, _shifting, from_start=True) | _one_sided_since(history)
    for layer in (record.name for record in _inner(history[0]) if record.name in everywhere):
        name, found = _begun(history, layer, everywhere[layer])
        looks = [snapshot for snapshot in history if found.since <= snapshot.step <= found.at.step]
        first, weight = _layer(looks[0], name), _weights(looks[-1])[name]
        if not first.std >= LIMITS.faded:
            continue
        drifts = [_drifts(snapshot)[name] for snapshot in looks if name in _drifts(snapshot)]
        energy, drift = first.mean_energy, max((each for each in drifts if not math.isnan(each)), default=math.nan)
        if not drift >= LIMITS.noticed:
            continue
        evidence = {
            "mean drift in std, highest": drift,
            "mean drift in std": weight.mean_drift,
            "mean energy": energy,
            "update coherence": weight.update_coherence,
            "coherence if independent": 1.0 / math.sqrt(weight.fan_in),
        }
        explanation = (
            f"What this layer receives has a mean far from zero ({energy:.1%} of its energy), so all "
            f"weights into a unit move together and one update shifts the unit's mean by up to {drift:.2g} "
            "standard deviations. The layers behind it chase that shift instead of learning."
        )
        one_sided, runaway = energy >= LIMITS.one_sided, drift >= LIMITS.runaway
        lasting = found.at.step - found.since >= LIMITS.lasting * (1 if one_sided or runaway else 2)
        severity = found.severity(critical=runaway) if lasting else "info"
        why = (
            Criterion("mean energy of the input", energy, ">=", LIMITS.alike),
            Criterion("highest mean drift in std", drift, ">=", LIMITS.noticed),
        )
        begun = energy >= LIMITS.nearly and not found.since
        traits = [Trait.ONE_SIDED if one_sided else Trait.NEARLY_ONE_SIDED] if begun else []
        todo = _remedies(found.at, name)
        yield found.finding("bias_shift", name, severity, evidence, explanation, todo, why, traits)


def _begins_faded(history: Sequence[Snapshot]) -> bool:
    """Whether all begins at one layer of the first look, whose signal has faded: each look shows it there or behind."""
    first, places = _first_shifting(history[0]), {layer.name: at for at, layer in enumerate(_inner(history[0]))}
    if first is None or _layer(history[0], first).std >= LIMITS.faded:
        return False
    return all(places.get(name or "", -1) >= places[first] for name in map(_first_shifting, history))


def _one_sided_since(history: Sequence[Snapshot]) -> dict[str, Persistence]:
    """Layers whose input has stayed one-sided since it moved the means: smaller steps, dead units only hide it."""
    found = persistences(history, _one_sided)
    first = {name: history[len(history) - each.run :][:HYSTERESIS] for name, each in found.items()}
    return {name: each for name, each in found.items() if all(name in _shifting(look) for look in first[name])}


def _begun(history: Sequence[Snapshot], name: str, found: Persistence) -> tuple[str, Persistence]:
    """Where and when it began: the first layer at the first of the looks in a row that show it in any."""
    index = next(i for i, snapshot in enumerate(history) if snapshot.step == found.since)
    while index and _first_shifting(history[index - 1]) is not None:
        index -= 1
    shifting = _shifting(history[index])
    first = next(layer.name for layer in _inner(history[index]) if layer.name in shifting or layer.name == name)
    return (first, dataclasses.replace(found, since=history[index].step)) if first in shifting else (name, found)


def _remedies(snapshot: Snapshot, name: str) -> Iterator[Remedy]:
    """The input is normalised where it is the data, and zero-mean units help behind others."""
    layer, data = _layer(snapshot, name), input_layer(snapshot)
    if data is not None and data.name == name:
        yield remedies.STANDARDIZE
    else:
        yield CENTRE
        for units in [a.function for a in snapshot.activations if a.order < layer.order][-1:]:
            if properties_of(units).range[0] >= 0.0 or properties_of(units).rectifier:
                yield from remedies.self_normalize(units)
    yield from remedies.batch_norm(snapshot, name)
    yield remedies.LOWER_LR


@remembered
def _weights(snapshot: Snapshot) -> dict[str | None, ParameterRecord]:
    """The weights of layers, by the layer's name."""
    return {record.layer: record for record in snapshot.parameters if record.fan_in > 1}


@remembered
def _drifts(snapshot: Snapshot) -> dict[str | None, float]:
    return {name: weight.mean_drift for name, weight in _weights(snapshot).items()}


def _inner(snapshot: Snapshot) -> list[WeightedRecord]:
    """Layers with such weights that others follow: an output unit is meant to find its mean."""
    return [layer for layer in snapshot.weighted[:-1] if layer.name in _weights(snapshot)]


def _layer(snapshot: Snapshot, name: str) -> WeightedRecord:
    return next(layer for layer in snapshot.weighted if layer.name == name)


def _alike(snapshot: Snapshot) -> Iterator[tuple[WeightedRecord, ParameterRecord]]:
    """Such layers to which the patterns come much alike, with their weights."""
    for layer in snapshot.weighted[:-1]:
        if layer.mean_energy >= LIMITS.alike and layer.name in _weights(snapshot):
            yield layer, _weights(snapshot)[layer.name]


@remembered
def _one_sided(snapshot: Snapshot) -> frozenset[str]:
    return frozenset([layer.name for layer, _ in _alike(snapshot) if layer.mean_energy >= LIMITS.one_sided])


@remembered
def _shifting(snapshot: Snapshot) -> frozenset[str]:
    return frozenset([layer.name for layer, weight in _alike(snapshot) if _shifts(layer, weight)])


@remembered
def _first_shifting(snapshot: Snapshot) -> str | None:
    return next((layer.name for layer, weight in _alike(snapshot) if _shifts(layer, weight)), None)


def _shifts(layer: WeightedRecord, weight: ParameterRecord) -> bool:
    """Whether an update moves the means of a layer's units."""
    one_sided, drift = layer.mean_energy >= LIMITS.one_sided, weight.mean_drift
    if layer.patterns < LIMITS.patterns or not (one_sided or drift >= LIMITS.drift):
        return False
    # A norm behind a one-sided layer parts the weights' ways, the mean jumps all the same. Whether the entries of a
    # unit's weights move alike is not known (NaN) where it moves no more.
    together = min(LIMITS.together / math.sqrt(weight.fan_in), LIMITS.coherent)
    return (one_sided and drift >= LIMITS.noticed) or not weight.update_coherence < together
