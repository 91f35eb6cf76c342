"""A wrong start is named by what it does: linear units, saturated units, a gradient that vanishes or explodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis.finding import SEVERITIES, Finding

# RMS(w) sqrt(fan_in): torch's default has .58, LeCun's scheme 1, He's 1.4; a normal of std .02 over 768 inputs .55
NORMAL_SCALE = (0.2, 5.0)
FAR_OFF = 4.0  # factor outside of these: no scheme draws such weights
ALONG_THE_WAY = ("exploding_gradient", "vanishing_gradient")  # of all layers together, not of one
AT_ONCE = 2  # optimiser steps within which the consequences of a start show
_UNITS = ("linearity", "saturation")
_OF_A_START = ("at one layer", "activation layer")


def name_by_effect(findings: Sequence[Finding]) -> list[Finding]:
    """The findings with poor_initialization given up where another one says more precisely what it does.

    Units that are linear or saturated from the start on, where the faulty weights feed them; else, where the signals
    change from layer to layer and not at a single one, an error signal that vanishes or explodes. The finding that
    stays takes over numbers and remedies, and is as severe as the surer of both.
    """
    findings = list(findings)
    start = next((finding for finding in findings if finding.problem == "poor_initialization"), None)
    effect = None if start is None else _effect(start, findings)
    if start is None or effect is None:
        return findings
    named = dataclasses.replace(
        effect,
        severity=max(start.severity, effect.severity, key=SEVERITIES.index),
        step=min(start.step, effect.step),
        evidence={**effect.evidence, **{k: v for k, v in start.evidence.items() if k not in _OF_A_START}},
        remedies=start.remedies,
    )
    return [named if finding is effect else finding for finding in findings if finding is not start]


def _effect(start: Finding, findings: Sequence[Finding]) -> Finding | None:
    at_once = [finding for finding in findings if finding.step <= start.step + AT_ONCE]
    for finding in at_once:
        fed = finding.evidence.get("weighted layer") == start.layer
        if properties_of(finding.evidence.get("units")).scale_free:
            continue
        there = fed or finding.layer == start.evidence["activation layer"]
        if finding.problem in _UNITS and there and (start.evidence["at one layer"] or not of_ordinary_weights(start)):
            return finding
    if start.evidence["at one layer"]:
        return None
    along = [finding for finding in at_once if finding.problem in ALONG_THE_WAY]
    linear = [
        finding
        for finding in at_once
        if finding.problem == "linearity" and not properties_of(finding.evidence.get("units")).scale_free
    ]
    exploding = [finding for finding in along if finding.problem == "exploding_gradient"]
    if exploding or of_ordinary_weights(start):
        return next(iter([*exploding, *along, *linear]), None)
    return next(iter(linear), None)


def of_ordinary_weights(finding: Finding) -> bool:
    """Whether the finding tells of weights whose size some scheme gives."""
    return is_ordinary(finding.evidence.get("weight scale"))


def is_ordinary(scale: float | None) -> bool:
    """Whether weights of this RMS(w) sqrt(fan_in) come from some scheme; None: it is not known.

    >>> is_ordinary(0.58), is_ordinary(0.01), is_ordinary(None)
    (True, False, False)
    """
    return scale is not None and NORMAL_SCALE[0] <= scale <= NORMAL_SCALE[1]
