"""One planted fault shows in many measures: what follows from what."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lightning_tricks.diagnosis.course import hidden_activations
from lightning_tricks.diagnosis.finding import SEVERITIES, Finding
from lightning_tricks.probes import Snapshot

# A problem and what it brings about, the causes in the order in which they are believed.
_FOLLOWS: dict[str, tuple[str, ...]] = {
    "symmetric_weights": (
        "poor_initialization",
        "linearity",
        "saturation",
        "dead_units",
        "bias_shift",
        "vanishing_gradient",
        "exploding_gradient",
    ),
    "unnormalized_input": ("saturation", "dead_units", "bias_shift", "exploding_gradient", "non_finite"),
    "poor_initialization": ("linearity", "saturation", "dead_units", "vanishing_gradient", "bias_shift"),
    "exploding_gradient": ("non_finite", "dead_units", "saturation", "bias_shift", "linearity"),
    "saturation": ("vanishing_gradient", "bias_shift", "linearity"),
    "dead_units": ("poor_initialization", "vanishing_gradient", "linearity", "bias_shift"),
    "bias_shift": ("dead_units", "saturation", "linearity", "vanishing_gradient"),
    "linearity": ("bias_shift", "vanishing_gradient"),
    "vanishing_gradient": ("linearity", "bias_shift"),
}
_LOUD_START = ("exploding_gradient", "non_finite")  # of an initialisation only if it is too large
_ANYWHERE = ("vanishing_gradient", "exploding_gradient", "non_finite")  # no forward order between these and their cause
_AT_ONCE = 2  # optimiser steps within which the consequences of a start show


def fold(findings: Sequence[Finding], snapshot: Snapshot) -> tuple[Finding, ...]:
    """Findings with their consequences folded under them, the worst cause first.

    A finding is folded under the nearest cause before it that can bring it about, is at least as sure and did not begin
    later.
    """
    order: dict[str | None, int] = {record.name: record.order for record in snapshot.weighted}
    order.update((record.name, record.order) for record in snapshot.activations)
    hidden = [record.name for record in hidden_activations(snapshot)]
    position = {problem: index for index, problem in enumerate(_FOLLOWS)}
    ranked = sorted(
        findings,
        key=lambda finding: (
            finding.problem in _ANYWHERE,
            order.get(finding.layer, 0),
            position.get(finding.problem, len(position)),
        ),
    )
    tops: list[Finding] = []
    for finding in ranked:
        causes = [index for index, top in enumerate(tops) if _brings(top, finding, order, hidden)]
        if not causes:
            tops.append(finding)
            continue
        nearest = max(causes, key=lambda index: order.get(tops[index].layer, 0))
        top = tops[nearest]
        severity = max(top.severity, finding.severity, key=SEVERITIES.index)
        tops[nearest] = dataclasses.replace(top, severity=severity, consequences=(*top.consequences, finding))
    return tuple(sorted(tops, key=lambda top: -top.rank))


def _brings(cause: Finding, finding: Finding, order: dict[str | None, int], hidden: Sequence[str]) -> bool:
    follows = _FOLLOWS.get(cause.problem, ())
    if cause.problem == "poor_initialization":
        if finding.step > cause.step + _AT_ONCE:
            return False
        if cause.evidence.get("pre-activation std", 0.0) > 1.0:
            follows = (*follows, *_LOUD_START)
    elif cause.severity == "info" and finding.severity != "info":
        return False
    if cause.problem == "linearity" and finding.problem == "dead_units":
        # rectifiers that are always on hand their large mean to the next layer, where it kills half of the units
        pair = [hidden.index(name) for name in (cause.layer, finding.layer) if name in hidden]
        return len(pair) == 2 and pair[1] == pair[0] + 1 and cause.step <= finding.step
    if finding.problem not in follows or cause.step > finding.step:
        return False
    if finding.problem in _ANYWHERE or cause.problem in _ANYWHERE:
        return True
    return order.get(cause.layer, 0) <= order.get(finding.layer, 0)
