"""A wrong start is named by what it does: linear units, saturated units, a gradient that vanishes or explodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lightning_tricks.diagnosis.finding import SEVERITIES, Criterion, Finding, Trait

ALONG_THE_WAY = ("exploding_gradient", "vanishing_gradient")  # of all layers together, not of one
AT_ONCE = 2  # optimiser steps within which the consequences of a start show
_OF_A_START = ("at one layer", "activation layer")  # not said of the finding that stays


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
    weights = {Trait.ORDINARY_WEIGHTS, Trait.SLOW}
    named = dataclasses.replace(
        effect,
        severity=max(start.severity, effect.severity, key=SEVERITIES.index),
        step=min(start.step, effect.step),
        evidence={**effect.evidence, **{k: v for k, v in start.evidence.items() if k not in _OF_A_START}},
        remedies=start.remedies,
        traits=(effect.traits - weights) | (start.traits & weights),
        decided_by=(*effect.decided_by, *(_placed(each, start.layer) for each in start.decided_by)),
    )
    return [named if finding is effect else finding for finding in findings if finding is not start]


def _placed(criterion: Criterion, layer: str | None) -> Criterion:
    """With the layer whose number it is, unless it says so."""
    known = layer is None or " at " in criterion.name
    return criterion if known else dataclasses.replace(criterion, name=f"{criterion.name} at {layer}")


def _effect(start: Finding, findings: Sequence[Finding]) -> Finding | None:
    at_once = [finding for finding in findings if finding.step <= start.step + AT_ONCE]
    at_one_layer, ordinary = (trait in start.traits for trait in (Trait.AT_ONE_LAYER, Trait.ORDINARY_WEIGHTS))
    units = [
        finding
        for finding in at_once
        if finding.problem in ("saturation", "linearity") and Trait.SCALE_FREE_UNITS not in finding.traits
    ]
    there = [finding for finding in units if finding.related == start.layer or finding.layer == start.related]
    if there and (at_one_layer or not ordinary):
        return there[0]
    if at_one_layer:
        return None
    linear = [finding for finding in units if finding.problem == "linearity"]
    exploding, vanishing = ([f for f in at_once if f.problem == problem] for problem in ALONG_THE_WAY)
    if exploding or ordinary:
        return next(iter([*exploding, *vanishing, *linear]), None)
    return next(iter(linear), None)
