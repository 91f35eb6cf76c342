"""stale_gradient: steps are made with gradients that still hold those of the steps before."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity
from lightning_tricks.diagnosis.history.persistence import Persistence
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import Snapshot

PROBLEM = "stale_gradient"
CLEAR = Remedy(
    "zero_grad",
    "call optimizer.zero_grad() before each loss.backward() (self.manual_backward(loss) where a LightningModule "
    "optimises by hand), or once per window where gradients are accumulated",
)


@thresholds
class LIMITS:
    mended: int = 3  # looks in a row with new gradients; one has them by itself, as a validation clears them
    looks: int = 2  # steps 0, 1 and 2 are looked at, which makes two pairs of successive steps


@rule(
    PROBLEM,
    "code",
    "learning_rate_too_high dead_units saturation vanishing_gradient exploding_gradient non_finite linearity "
    "bias_shift poor_initialization batch_norm_mismatch overfitting",
    clause="gradients are never cleared",
    order=1,
    reads="whole",
    table=(11, "`zero_grad()` before `backward()`"),
    needs="gradients",
)
def find_stale_gradient(history: Sequence[Snapshot]) -> list[Finding]:
    """A step is made with what was left of the gradient of the step before.

    A parameter is stepped twice by its own optimiser, and its gradient was neither cleared nor overwritten in between.
    Only looks that tell are read: before others, steps that nobody looked at may have cleared it.
    """
    told = [(s, s.training) for s in history if s.training is not None and s.training.cleared + s.training.stale > 0]
    stale = [(snapshot, training) for snapshot, training in told if training.stale]
    if not any(training.stale for _, training in told[-LIMITS.mended :]):
        return []
    persistence, latest = Persistence.over([snapshot for snapshot, _ in stale]), stale[-1][1]
    long = Criterion("steps with a gradient left from the step before", len(stale), ">=", LIMITS.looks)
    evidence = {
        "parameters stepped with an old gradient": latest.stale,
        "with a new one": latest.cleared,
        "looks": len(stale),
    }
    explanation = (
        "A gradient is still there when the next backward pass begins, which adds to it, and the optimiser steps with "
        "the sum. So every step repeats all those before it: the direction is out of date and the size grows."
    )
    severity: Severity = "critical" if long.holds else "info"
    why = Criterion("parameters stepped with an old gradient", latest.stale, ">", 0), long
    return [persistence.finding(PROBLEM, None, severity, evidence, explanation, [CLEAR], why)]
