"""saturation: hidden units on the flat sides of their curve."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.diagnosis.history.persistence import first_of, hidden_activations, layer_course, weighted_before
from lightning_tricks.probes import ActivationRecord, Snapshot

SATURATED = 0.5  # share of patterns on a flat side, mean over units
BLOCKED = 0.9


def find_saturation(history: Sequence[Snapshot]) -> list[Finding]:
    """The first hidden layer whose units sit on their flat sides for most patterns."""
    found_at: list[Finding] = []
    for record in hidden_activations(history[-1]):
        if not _saturated(record):
            continue
        found = layer_course(history, record.name, _saturated)
        if found is None:
            continue
        before = weighted_before(history[-1], record)
        evidence = {
            "saturation": record.saturation,
            "pre-activation std": record.std,
            "pre-activation mean": record.mean,
            "transmission": record.transmission,
            "weighted layer": before.name if before else None,
        }
        explanation = (
            f"These {record.function} units are on a flat side of their curve for {record.saturation:.0%} of the "
            "patterns. Their slope there is nearly zero, so they hardly respond and pass no error signal back."
        )
        todo = (
            remedies.initialize(before.name if before else None),
            remedies.SELU,
            remedies.BATCH_NORM,
            remedies.LOWER_LR,
        )
        severity = found.severity(critical=record.saturation >= BLOCKED)
        found_at.append(Finding("saturation", record.name, severity, found.since, evidence, explanation, todo))
    return first_of(found_at)


def _saturated(record: ActivationRecord | None) -> bool:
    if record is None or not properties_of(record.function).two_sided:  # one flat side is how a rectifier works
        return False
    return record.saturation >= SATURATED
