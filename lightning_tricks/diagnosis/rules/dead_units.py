"""dead_units: units with a hard zero that are active on (almost) no pattern."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy
from lightning_tricks.diagnosis.history.layers import faulty_layers, varies, weights_before
from lightning_tricks.diagnosis.history.persistence import RECOVERY
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import ActivationRecord, Snapshot
from lightning_tricks.probes.records.activations import DEAD

LEAKY = Remedy("swap_activation", "use units that cannot die: SELU, or nn.LeakyReLU")


@thresholds
class LIMITS:
    dead: float = 0.5  # share of units that are dead (SageMaker's rule)
    gone: float = 0.9
    patterns: int = 150  # a unit is judged over at least this many: it may be active on one of them
    window: int = 5  # probed steps over which units are judged together
    held_down: float = -0.3  # mean pre-activation of a layer whose biases hold it under zero
    faint_std: float = 0.03  # of a pre-activation


@rule(
    "dead_units",
    "units",
    "poor_initialization vanishing_gradient linearity bias_shift learning_rate_too_low",
    clause="units are dead",
    at_start="start",
    order=2,
    first_only=True,
    table=(3, "SELU or leaky ReLU, lower learning rate"),
    needs="activations",
)
def find_dead_units(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Over half of a layer's units are active on under 1 % of the patterns.

    Never by the share of zeros: a healthy sparse layer may be zero for nine patterns in ten, each unit for others.
    """
    for record, found, before in faulty_layers(history, dying):
        pooled = _pooled(history, record)
        why = (
            Criterion("share of dead units", pooled.dead_share, ">", LIMITS.dead),
            Criterion("patterns looked at", pooled.patterns, ">=", LIMITS.patterns),
        )
        weighted = weights_before(history[-1], record)
        if not all(criterion.holds for criterion in why) or not varies(weighted):  # one pattern, however often
            continue
        evidence = {
            "dead units": f"{round(pooled.dead_share * pooled.units)} of {pooled.units}",
            "patterns looked at": pooled.patterns,
            "pre-activation mean": record.mean,
            "pre-activation std": record.std,
            "weighted layer": before,
        }
        explanation = (
            f"{pooled.dead_share:.0%} of these {record.function} units are zero on (almost) every pattern. A dead "
            "unit has slope zero, so no error signal reaches its weights and it stays dead."
        )
        held = record.mean < min(LIMITS.held_down, -record.std)
        todo = [*(_reset_bias(history[-1], before, record.mean) if held else ()), LEAKY, remedies.initialize(before)]
        if found.since > history[0].step:  # what was dead at the start no step killed
            todo.insert(-1, remedies.LOWER_LR)
        severity = found.severity(critical=pooled.dead_share >= LIMITS.gone)
        if record.std < LIMITS.faint_std and not held and history[-1].step - found.since < RECOVERY:
            severity = "info"  # the signal is faint, so each unit is on or off for all patterns: a start that may mend
        yield found.finding("dead_units", record.name, severity, evidence, explanation, todo, why, related=before)


def _reset_bias(snapshot: Snapshot, layer: str | None, mean: float) -> Iterator[Remedy]:
    """Where biases hold the units under zero, and no large input."""
    for bias in snapshot.parameters:
        if layer is not None and bias.name == f"{layer}.bias" and bias.weight > 0.5 * abs(mean):
            zeros = f"nn.init.zeros_({remedies.written(bias.name)})"
            text = f"set the biases to 0, {zeros}: they hold these units under zero"
            yield Remedy("reset_bias", text, layer)


def dying(records: Iterable[ActivationRecord]) -> list[ActivationRecord]:
    """The layers of which over half of the units were (almost) never active in one step."""
    return [record for record in records if record.dead_share > LIMITS.dead]


def _pooled(history: Sequence[Snapshot], record: ActivationRecord) -> ActivationRecord:
    """The record over a window of steps; from a stored history, without sums, at most so many units are dead.

    Where small batches make that too few patterns, over as many steps as it takes: what was never active is dead.
    """
    looks = (found for snapshot in reversed(history) if (found := snapshot.activation(record.name)) is not None)
    seen = list(itertools.islice(looks, LIMITS.window))[::-1]
    known = [found for found in seen if found.sums is not None]
    if known:
        pooled = _merged(known)
    else:
        patterns, dead = sum(found.patterns for found in seen), min(found.dead_share for found in seen)
        pooled = record.with_values(patterns=patterns, dead_share=dead)
    return pooled if pooled.patterns >= LIMITS.patterns else _accumulated([*reversed(seen), *looks]) or pooled


def _merged(records: Sequence[ActivationRecord]) -> ActivationRecord:
    """The patterns of all of them, as far as dead units go: the other sums are many."""
    patterns = sum(record.patterns for record in records)
    active = sum(record.sums.active for record in records if record.sums is not None)
    dead = float(np.mean(active / max(patterns, 1) < DEAD))
    return records[0].with_values(patterns=patterns, dead_share=dead)


def _accumulated(looks: Sequence[ActivationRecord]) -> ActivationRecord | None:
    """Of looks, the latest first, those that together have patterns enough; None where these are too few."""
    patterns = active = 0
    for look in looks:
        if not look.awake or look.units != looks[0].units:
            return None
        patterns, active = patterns + look.patterns, active | int(look.awake, 16)
        if patterns >= LIMITS.patterns:
            return look.with_values(patterns=patterns, dead_share=1.0 - active.bit_count() / look.units)
    return None
