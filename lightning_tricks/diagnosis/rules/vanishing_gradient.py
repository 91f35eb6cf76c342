"""vanishing_gradient: the error signal is lost on its way back to the first layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy
from lightning_tricks.diagnosis.history.error_signal import ErrorSignalByLayer
from lightning_tricks.diagnosis.history.layers import fed_by, hidden_activations
from lightning_tricks.diagnosis.history.persistence import RECOVERY, persistence
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.diagnosis.rules.dead_units import dying, find_dead_units
from lightning_tricks.probes import Snapshot

RESIDUAL = Remedy("insert_residual", "give the gradient a short way back: residual connections, or fewer layers")


@thresholds
class LIMITS:
    vanished: float = 1e-3  # first over last error signal (AUTOTRAINER's bound for gradients)
    blocked: float = 1e-6
    steep: float = 0.1  # decades per layer: a healthy signal fades less, whatever its ends are


@rule(
    "vanishing_gradient",
    "gradient",
    "linearity bias_shift dead_units learning_rate_too_low poor_initialization",
    clause="the gradient vanishes",
    order=2,
    table=(4, "initialise, SELU, batch norm; clip"),
    needs="error signals",
)
def find_vanishing_gradient(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """The error signal is lost, or grows, on its way back."""
    found = persistence(history, _vanishes)
    if found is None:
        return
    latest, signal = history[-1], ErrorSignalByLayer.of(history[-1])
    known = [record for record in latest.activations if record.transmission >= 0]
    blocking = min(known, key=lambda record: record.transmission, default=None)
    evidence = {
        "shrinks to": signal.ratio,
        "decades lost per layer": signal.slope,
        "weighted layers": len(signal.names),
        "smallest transmission": None if blocking is None else blocking.transmission,
        "smallest transmission at": None if blocking is None else blocking.name,
    }
    explanation = (
        f"The error signal shrinks to {signal.ratio:.1e} of itself on its way from the last layer to the first. "
        "The first layers therefore hardly learn, and every later layer builds on features that stay random."
    )
    units, layer = (blocking.function, fed_by(latest, blocking)) if blocking else ("", None)
    todo = (*remedies.of_a_start(latest, units, layer), RESIDUAL)
    blocked = signal.ratio < LIMITS.blocked
    severity = found.severity(critical=blocked)
    if not blocked and latest.step - found.since < RECOVERY:
        severity = "info"  # torch's default start of a ReLU network of eight layers, which mends itself
    if dying(hidden_activations(latest)) and not find_dead_units(history):
        severity = "info"  # units that look dead are to be judged first, and not enough patterns have been seen
    why = _criteria(signal)
    yield found.finding("vanishing_gradient", signal.place, severity, evidence, explanation, todo, why)


@remembered
def _vanishes(snapshot: Snapshot) -> bool:
    return all(criterion.holds for criterion in _criteria(ErrorSignalByLayer.of(snapshot)))


def _criteria(signal: ErrorSignalByLayer) -> Iterator[Criterion]:
    yield Criterion("shrinks to", signal.ratio, "<", LIMITS.vanished)
    if signal.norms[0] > 0:
        yield Criterion("decades lost per layer", signal.slope, ">", LIMITS.steep)
