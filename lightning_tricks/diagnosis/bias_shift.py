"""bias_shift: inputs of one sign move all weights of a unit together, and the unit's mean runs away."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.course import course
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.probes import ParameterRecord, Snapshot, WeightedRecord

ALIKE = 0.6  # mean energy of the input; .32 behind a rectified centred Gaussian, 1 where all patterns look alike
TOGETHER = 3.0  # update coherence in units of 1/sqrt(fan_in), what independent entries give
DRIFT = 0.5  # standard deviations of a by which ONE update moves a unit's mean
RUNAWAY = 5.0
FADED = 0.03  # std of the pre-activation under which every shift is large: there the fading itself is the problem


def find_bias_shift(history: Sequence[Snapshot]) -> list[Finding]:
    """The first weighted layer whose units are pushed as a whole by every update."""
    for layer, weight in _pairs(history[-1]):
        if not _shifts(layer, weight):
            continue
        found = course(history, lambda snapshot, name=weight.name: _shifts_at(snapshot, name))  # type: ignore[misc]
        if found is None:
            continue
        evidence = {
            "mean drift in std": weight.mean_drift,
            "mean energy": layer.mean_energy,
            "update coherence": weight.update_coherence,
            "coherence if independent": 1.0 / math.sqrt(weight.fan_in),
        }
        explanation = (
            f"What this layer receives has a mean far from zero ({layer.mean_energy:.0%} of its energy), so all "
            f"weights into a unit move together and one update shifts the unit's mean by {weight.mean_drift:.2g} "
            "standard deviations. The layers behind it chase that shift instead of learning."
        )
        todo = (remedies.CENTRE, remedies.SELU, remedies.BATCH_NORM, remedies.LOWER_LR)
        severity = found.severity(critical=weight.mean_drift >= RUNAWAY)
        return [Finding("bias_shift", layer.name, severity, found.since, evidence, explanation, todo)]
    return []


def _pairs(snapshot: Snapshot) -> list[tuple[WeightedRecord, ParameterRecord]]:
    """Weighted layers that others follow, with their weight: an output unit is meant to find its mean."""
    weights = {record.layer: record for record in snapshot.parameters if record.layer is not None}
    return [(layer, weights[layer.name]) for layer in snapshot.weighted[:-1] if layer.name in weights]


def _shifts(layer: WeightedRecord, weight: ParameterRecord) -> bool:
    if weight.fan_in < 2 or not layer.std >= FADED or not layer.mean_energy >= ALIKE or not weight.mean_drift >= DRIFT:
        return False
    return weight.update_coherence >= min(TOGETHER / math.sqrt(weight.fan_in), 0.9)


def _shifts_at(snapshot: Snapshot, weight: str) -> bool:
    return any(record.name == weight and _shifts(layer, record) for layer, record in _pairs(snapshot))
