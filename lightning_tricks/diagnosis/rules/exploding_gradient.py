"""exploding_gradient: the error signal grows from layer to layer on its way back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Criterion, Finding
from lightning_tricks.diagnosis.history.error_signal import ErrorSignalByLayer
from lightning_tricks.diagnosis.history.persistence import persistence
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import Snapshot


@thresholds
class LIMITS:
    exploded: float = 100.0  # first over last error signal; AUTOTRAINER takes 70, 32 healthy SELU layers reach 3
    overflowing: float = 1e4
    steep: float = 0.1  # decades per layer: a healthy signal grows less, whatever its ends are


@rule(
    "exploding_gradient",
    "gradient",
    "non_finite dead_units saturation bias_shift linearity learning_rate_too_high output_mismatch",
    clause="the gradient explodes",
    at_start="first gradient",
    order=1,
    table=(5, ""),
    needs="error signals",
)
def find_exploding_gradient(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """The error signal grows from layer to layer on its way back."""
    found = persistence(history, _explodes)
    if found is None:
        return
    signal = ErrorSignalByLayer.of(history[-1])
    why = list(_criteria(signal))
    evidence = {**{each.name: each.value for each in why}, "weighted layers": len(signal.names)}
    explanation = (
        f"The error signal grows to {signal.ratio:.1e} times itself on its way from the last layer to the first. "
        "One step then throws the first layers far off, and the loss jumps or overflows."
    )
    severity = found.severity(critical=signal.ratio > LIMITS.overflowing)
    begun = (remedies.initialize(),) if found.since == history[0].step else ()
    todo = (*begun, remedies.CLIP, remedies.LOWER_LR)
    yield found.finding("exploding_gradient", signal.place, severity, evidence, explanation, todo, why)


@remembered
def _explodes(snapshot: Snapshot) -> bool:
    return all(criterion.holds for criterion in _criteria(ErrorSignalByLayer.of(snapshot)))


def _criteria(signal: ErrorSignalByLayer) -> Iterator[Criterion]:
    yield Criterion("grows to", signal.ratio, ">", LIMITS.exploded)
    yield Criterion("decades gained per layer", -signal.slope, ">", LIMITS.steep)
