"""saturation: hidden units on the flat sides of their curve."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Criterion, Finding
from lightning_tricks.diagnosis.history.layers import faulty_layers
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import ActivationRecord, Snapshot


@thresholds
class LIMITS:
    saturated: float = 0.5  # share of patterns on a flat side, mean over units
    blocked: float = 0.9


@rule(
    "saturation",
    "units",
    "vanishing_gradient exploding_gradient bias_shift linearity poor_initialization learning_rate_too_low",
    "saturated units",
    clause="the units are saturated",
    at_start="start",
    order=1,
    first_only=True,
    table=(2, "smaller initial weights, SELU, batch norm"),
    needs="activations",
)
def find_saturation(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Units sit on the flat sides of their curve."""
    for record, found, before in faulty_layers(history, _saturated):
        evidence = {
            "saturation": record.saturation,
            "pre-activation std": record.std,
            "pre-activation mean": record.mean,
            "transmission": record.transmission,
            "weighted layer": before,
        }
        explanation = (
            f"These {record.function} units are on a flat side of their curve for {record.saturation:.0%} of the "
            "patterns. Their slope there is nearly zero, so they hardly respond and pass no error signal back."
        )
        begun = found.since == history[0].step  # what was saturated at the start no step has driven there
        todo = (
            remedies.initialize(before) if begun else remedies.LOWER_LR,
            *remedies.self_normalize(record.function),
            *remedies.batch_norm(history[-1], before),
        )
        why = [Criterion("saturation", record.saturation, ">=", LIMITS.saturated)]
        severity = found.severity(critical=record.saturation >= LIMITS.blocked)
        yield found.finding("saturation", record.name, severity, evidence, explanation, todo, why, related=before)


def _saturated(records: Iterable[ActivationRecord]) -> list[ActivationRecord]:
    """One flat side is how a rectifier works."""
    return [r for r in records if r.saturation >= LIMITS.saturated and properties_of(r.function).two_sided]
