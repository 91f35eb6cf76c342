"""symmetric_weights: units that begin, and therefore stay, the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import Snapshot


@thresholds
class LIMITS:
    early: int = 16  # optimiser steps after which weights no longer show how they began
    units: int = 2  # a single one equals none


@rule(
    "symmetric_weights",
    "code",
    "poor_initialization linearity saturation dead_units bias_shift vanishing_gradient exploding_gradient "
    "learning_rate_too_low learning_rate_too_high output_mismatch",
    clause="the units of a layer have equal weights",
    order=4,
    table=(8, "random initialisation"),
    needs="gradients",
)
def find_symmetric_weights(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """All units of a layer begin with the same weights."""
    first = history[0]
    last = first.weighted[-1].name if first.weighted else None
    layers = {record.name: record for record in first.weighted if first.step <= LIMITS.early}
    for record in first.parameters:
        layer = layers.get(record.layer or "")
        if layer is None or not record.symmetric or layer.units < LIMITS.units:
            continue
        later = [r.symmetric for snapshot in history[1:] for r in snapshot.parameters if r.name == record.name]
        if record.weight == 0.0 and (layer.name == last or not any(later[-1:])):
            continue  # a branch or an output that begins at zero finds its own way
        evidence = {"units with equal weights": layer.units, "root mean square weight": record.weight}
        explanation = (
            f"All {layer.units} units of this layer have exactly the same weights. They compute the same, receive the "
            "same gradient and stay the same, so the layer is worth a single unit."
        )
        why = (Criterion("units with equal weights", layer.units, ">=", LIMITS.units),)
        todo = (Remedy("initialize", f"start with random weights: lt.init.lecun_normal_({record.name})", layer.name),)
        yield Finding(
            "symmetric_weights", layer.name, "critical", first.step, evidence, explanation, todo, decided_by=why
        )
        return
