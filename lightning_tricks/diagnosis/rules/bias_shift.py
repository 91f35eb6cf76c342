"""bias_shift: inputs of one sign move all weights of a unit together, and the unit's mean runs away."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.diagnosis.history.persistence import course, first_of
from lightning_tricks.probes import ParameterRecord, Snapshot, WeightedRecord

ALIKE = 0.6  # mean energy of the input; .32 behind a rectified centred Gaussian, 1 where all patterns look alike
ONE_SIDED = 0.96  # a mean of 4.9 standard deviations: healthy layers pass it for a moment, bottlenecks reach .965
TOGETHER = 3.0  # update coherence in units of 1/sqrt(fan_in), what independent entries give
DRIFT = 1.0  # standard deviations of a by which ONE update moves a unit's mean; a healthy logistic layer starts at .84
NOTICED = 0.2  # the same where the input stays one-sided; there every unit depends on one direction of its weights
RUNAWAY = 5.0
LASTING = 7  # optimiser steps; twice as many where neither is extreme: the first of RMSprop and Adam are the largest
FADED = 0.03  # std of the pre-activation under which every shift is large: there the fading itself is the problem


def find_bias_shift(history: Sequence[Snapshot]) -> list[Finding]:
    """The first weighted layer whose units are pushed as a whole by every update."""
    found_at: list[Finding] = []
    for layer, _ in _pairs(history[0]):
        found = course(history, lambda snapshot, name=layer.name: _shifts(snapshot, name), from_start=True)  # type: ignore[misc]
        if found is None:
            continue
        during = [snapshot for snapshot in history if found.since <= snapshot.step <= found.at.step]
        looks = [pair for pair in (_pair(snapshot, layer.name) for snapshot in during) if pair is not None]
        at = _pair(found.at, layer.name)
        drift = max((weight.mean_drift for _, weight in looks if not math.isnan(weight.mean_drift)), default=math.nan)
        if at is None or not drift >= NOTICED:
            continue
        _, weight = at
        evidence = {
            "mean drift in std, highest": drift,
            "mean drift in std": weight.mean_drift,
            "mean energy": looks[0][0].mean_energy,
            "update coherence": weight.update_coherence,
            "coherence if independent": 1.0 / math.sqrt(weight.fan_in),
        }
        explanation = (
            f"What this layer receives has a mean far from zero ({looks[0][0].mean_energy:.1%} of its energy), so all "
            f"weights into a unit move together and one update shifts the unit's mean by up to {drift:.2g} "
            "standard deviations. The layers behind it chase that shift instead of learning."
        )
        todo = (remedies.CENTRE, remedies.SELU, remedies.BATCH_NORM, remedies.LOWER_LR)
        plain = looks[0][0].mean_energy >= ONE_SIDED or drift >= RUNAWAY
        lasting = found.at.step - found.since >= (LASTING if plain else 2 * LASTING)
        severity = found.severity(critical=drift >= RUNAWAY) if lasting else "info"
        found_at.append(Finding("bias_shift", layer.name, severity, found.since, evidence, explanation, todo))
    return first_of(found_at)


def _pairs(snapshot: Snapshot) -> list[tuple[WeightedRecord, ParameterRecord]]:
    """Weighted layers that others follow, with their weight: an output unit is meant to find its mean."""
    weights = {record.layer: record for record in snapshot.parameters if record.layer is not None and record.fan_in > 1}
    return [(layer, weights[layer.name]) for layer in snapshot.weighted[:-1] if layer.name in weights]


def _pair(snapshot: Snapshot, name: str) -> tuple[WeightedRecord, ParameterRecord] | None:
    return next((pair for pair in _pairs(snapshot) if pair[0].name == name), None)


def _shifts(snapshot: Snapshot, name: str) -> bool:
    pair = _pair(snapshot, name)
    if pair is None or not pair[0].std >= FADED:
        return False
    layer, weight = pair
    together = not weight.update_coherence < min(TOGETHER / math.sqrt(weight.fan_in), 0.9)  # NaN: it moves no more
    if layer.mean_energy >= ONE_SIDED:  # a normalisation behind it parts the weights' ways, the mean jumps all the same
        return together or weight.mean_drift >= NOTICED
    return layer.mean_energy >= ALIKE and weight.mean_drift >= DRIFT and together
