"""dead_units: units with a hard zero that are active on (almost) no pattern."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.diagnosis.history.persistence import (
    HYSTERESIS,
    RECOVERY,
    first_of,
    hidden_activations,
    layer_course,
    weighted_before,
)
from lightning_tricks.probes import ActivationRecord, Snapshot

DEAD_LAYER = 0.5  # share of units that are dead (SageMaker's rule)
GONE = 0.9
ENOUGH_PATTERNS = 150  # a unit is judged over at least this many: it may be active on one of them
HELD_DOWN = -0.3  # mean pre-activation of a layer whose biases hold it under zero
FAINT = 0.03  # std of a pre-activation


def find_dead_units(history: Sequence[Snapshot]) -> list[Finding]:
    """The first hidden layer of which more than half is active on under 1 % of the patterns of the last probed steps.

    Never by the share of zeros: a healthy sparse layer may be zero for nine patterns in ten, each unit for others.
    """
    found_at: list[Finding] = []
    latest = history[-1]
    for record in hidden_activations(latest):
        if not dying(record):
            continue
        pooled = _pooled(history, record)
        if pooled.patterns < ENOUGH_PATTERNS or pooled.dead_share < DEAD_LAYER:
            continue
        found = layer_course(history, record.name, dying)
        if found is None:
            continue
        before = weighted_before(latest, record)
        evidence = {
            "dead units": f"{round(pooled.dead_share * pooled.units)} of {pooled.units}",
            "patterns looked at": pooled.patterns,
            "pre-activation mean": record.mean,
            "pre-activation std": record.std,
            "weighted layer": before.name if before else None,
        }
        explanation = (
            f"{pooled.dead_share:.0%} of these {record.function} units are zero on (almost) every pattern. A dead "
            "unit has slope zero, so no error signal reaches its weights and it stays dead."
        )
        held = record.mean < min(HELD_DOWN, -record.std)
        first = (remedies.RESET_BIAS,) if held else ()
        slower = (
            (remedies.LOWER_LR,) if found.since > history[0].step else ()
        )  # what was dead at the start no step killed
        todo = (*first, remedies.LEAKY, *slower, remedies.initialize(before.name if before else None))
        severity = found.severity(critical=pooled.dead_share >= GONE)
        if record.std < FAINT and not held and latest.step - found.since < RECOVERY:
            severity = "info"  # the signal is faint, so each unit is on or off for all patterns: a start that may mend
        found_at.append(Finding("dead_units", record.name, severity, found.since, evidence, explanation, todo))
    return first_of(found_at)


def dying(record: ActivationRecord | None) -> bool:
    """Whether over half of a layer's units were (almost) never active in one step."""
    return record is not None and record.dead_share >= DEAD_LAYER


def _pooled(history: Sequence[Snapshot], record: ActivationRecord) -> ActivationRecord:
    """The record over a window of steps; from a stored history, without sums, at most so many units are dead."""
    window = [snapshot.activation(record.name) for snapshot in history[-max(HYSTERESIS, 5) :]]
    looks = [found for found in window if found is not None]
    known = [found for found in looks if found.sums is not None]
    if known:
        return functools.reduce(lambda one, other: one.merge(other), known)
    patterns, dead = sum(found.patterns for found in looks), min(found.dead_share for found in looks)
    return record.with_values(patterns=patterns, dead_share=dead)
