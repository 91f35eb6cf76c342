"""From a history of snapshots to findings: every rule once, then consequences under their causes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np

from lightning_tricks.diagnosis.attribution import fold
from lightning_tricks.diagnosis.finding import PROBLEMS, Finding
from lightning_tricks.diagnosis.rules.batch_norm_mismatch import find_batch_norm_mismatch
from lightning_tricks.diagnosis.rules.bias_shift import find_bias_shift
from lightning_tricks.diagnosis.rules.dead_units import find_dead_units
from lightning_tricks.diagnosis.rules.disconnected_parameters import find_disconnected_parameters
from lightning_tricks.diagnosis.rules.gradient import find_exploding_gradient, find_vanishing_gradient
from lightning_tricks.diagnosis.rules.initialization import find_poor_initialization, find_symmetric_weights
from lightning_tricks.diagnosis.rules.learning_rate import find_learning_rate_too_high, find_learning_rate_too_low
from lightning_tricks.diagnosis.rules.linearity import find_linearity
from lightning_tricks.diagnosis.rules.non_finite import find_non_finite
from lightning_tricks.diagnosis.rules.output_mismatch import find_output_mismatch
from lightning_tricks.diagnosis.rules.overfitting import find_overfitting
from lightning_tricks.diagnosis.rules.saturation import find_saturation
from lightning_tricks.diagnosis.rules.unnormalized_input import find_unnormalized_input
from lightning_tricks.probes import Snapshot

Rule = Callable[[Sequence[Snapshot]], list[Finding]]
RULES: tuple[Rule, ...] = (
    find_symmetric_weights,
    find_disconnected_parameters,
    find_output_mismatch,
    find_batch_norm_mismatch,
    find_unnormalized_input,
    find_poor_initialization,
    find_exploding_gradient,
    find_saturation,
    find_dead_units,
    find_bias_shift,
    find_linearity,
    find_vanishing_gradient,
    find_learning_rate_too_high,
    find_learning_rate_too_low,
    find_overfitting,
)


_OVERALL: frozenset[Rule] = frozenset({find_disconnected_parameters, find_output_mismatch})  # faults in the code
_START, _BETWEEN, _LATEST = 8, 24, 16  # looks that such a rule is given of a long history


@np.errstate(all="ignore")  # NaN and Inf are what is looked for
def find(history: Sequence[Snapshot], ignore: Collection[str] = ()) -> tuple[Finding, ...]:
    """All findings of a history, the cause first, without the problems named in ``ignore``.

    Steps after the first NaN or Inf are not judged: every measure there is one as well.

    Raises:
        ValueError: ``ignore`` names an unknown problem.
    """
    unknown = [name for name in ignore if name not in PROBLEMS]
    if unknown:
        raise ValueError(f"unknown problem to ignore: {', '.join(unknown)}; known are {', '.join(PROBLEMS)}")
    if not history:
        return ()
    broken = find_non_finite(history)
    before = [snapshot for snapshot in history if not broken or snapshot.step < broken[0].step]
    findings = [*broken]
    if before:
        until = [*before, *_on_the_way(broken, history)]
        spread = spread_looks(before)
        for rule in RULES:
            looks = until if rule is find_learning_rate_too_high else spread if rule in _OVERALL else before
            findings += rule(looks)
    kept = [finding for finding in findings if finding.problem not in ignore]
    return fold(kept, (before or list(history))[-1])


def spread_looks(history: Sequence[Snapshot]) -> list[Snapshot]:
    """The first looks, the latest, and some evenly between, so that the cost of a look does not grow with a training.

    What lies in the code lies there at every look. The distance between looks is a power of two: those once left out
    stay so.

    >>> len(spread_looks([Snapshot(step) for step in range(1000)])) <= 48
    True
    """
    if len(history) <= _START + _BETWEEN + _LATEST:
        return list(history)
    middle = range(_START, len(history) - _LATEST)
    apart = 1
    while len(middle) > apart * _BETWEEN:
        apart *= 2
    return [*history[:_START], *(history[i] for i in middle if i % apart == 0), *history[-_LATEST:]]


def _on_the_way(broken: Sequence[Finding], history: Sequence[Snapshot]) -> list[Snapshot]:
    """The losses between the last clean look and the first NaN or Inf: they tell whether it came by large steps."""
    if not broken:
        return []
    snapshot = next(snapshot for snapshot in history if snapshot.step == broken[0].step)
    losses = tuple(loss for loss in snapshot.recent_losses if not math.isnan(loss))
    return [Snapshot(snapshot.step, losses[-1], recent_losses=losses)] if losses else []
