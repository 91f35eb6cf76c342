"""One planted fault shows in many measures: what follows from what."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from lightning_tricks.diagnosis.finding import SEVERITIES, Finding
from lightning_tricks.diagnosis.history.persistence import hidden_activations
from lightning_tricks.diagnosis.rules.bias_shift import ONE_SIDED
from lightning_tricks.diagnosis.wrong_start import ALONG_THE_WAY, AT_ONCE, name_by_effect, of_ordinary_weights
from lightning_tricks.probes import Snapshot

# A problem and what it brings about.
_FOLLOWS: Mapping[str, frozenset[str]] = {
    problem: frozenset(follows.split())
    for problem, follows in {
        "symmetric_weights": "poor_initialization linearity saturation dead_units bias_shift vanishing_gradient "
        "exploding_gradient learning_rate_too_low learning_rate_too_high output_mismatch",
        "disconnected_parameters": "linearity vanishing_gradient learning_rate_too_low overfitting bias_shift",
        "unnormalized_input": "saturation dead_units bias_shift exploding_gradient non_finite learning_rate_too_high "
        "learning_rate_too_low output_mismatch overfitting",
        "batch_norm_mismatch": "overfitting learning_rate_too_high bias_shift exploding_gradient dead_units saturation "
        "linearity",
        "output_mismatch": "vanishing_gradient exploding_gradient learning_rate_too_low learning_rate_too_high "
        "bias_shift dead_units saturation linearity overfitting non_finite",
        "poor_initialization": "linearity saturation dead_units vanishing_gradient bias_shift learning_rate_too_low",
        "exploding_gradient": "non_finite dead_units saturation bias_shift linearity learning_rate_too_high "
        "output_mismatch",
        "saturation": "vanishing_gradient exploding_gradient bias_shift linearity poor_initialization "
        "learning_rate_too_low",
        "dead_units": "poor_initialization vanishing_gradient linearity bias_shift learning_rate_too_low",
        "learning_rate_too_high": "dead_units saturation bias_shift linearity vanishing_gradient exploding_gradient "
        "non_finite output_mismatch poor_initialization overfitting",
        "bias_shift": "dead_units saturation linearity learning_rate_too_high",
        "linearity": "bias_shift vanishing_gradient learning_rate_too_low",
        "vanishing_gradient": "linearity bias_shift dead_units learning_rate_too_low poor_initialization",
    }.items()
}
_FAINT_INPUT = {"linearity", "poor_initialization", "vanishing_gradient"}
_NEARLY = 0.85  # mean energy of an input that is one-sided where an update throws the means as well ...
_THROWN = 1.5  # ... by so many standard deviations: a healthy logistic layer begins at .948 and .84
_LOUD_START = {"exploding_gradient", "non_finite", "learning_rate_too_high", "output_mismatch"}
_POSITION = {problem: index for index, problem in enumerate(_FOLLOWS)}
# Causes that lie in the code or the data come first, then what was wrong at the start, then the learning rate.
_IN_CODE = {"symmetric_weights", "disconnected_parameters", "unnormalized_input", "batch_norm_mismatch"}
_OF_UNITS = {"saturation", "dead_units", "linearity"}
# What keeps a usual start from mending, wherever it lies.
_HOLDS_BACK = (_IN_CODE - {"unnormalized_input"}) | {"learning_rate_too_low", "learning_rate_too_high", "saturation"}
_AT_LAST = {"non_finite", "overfitting"}


def fold(findings: Sequence[Finding], snapshot: Snapshot) -> tuple[Finding, ...]:
    """Findings with their consequences folded under them, the worst cause first.

    A finding is folded under the nearest cause that can bring it about, is at least as sure and did not begin later.

    Args:
        findings: What the rules found, in any order.
        snapshot: The last look, for the order of execution.
    """
    findings = name_by_effect(findings)
    order: dict[str | None, int] = {record.name: record.order for record in snapshot.weighted}
    order.update((record.name, record.order) for record in snapshot.activations)
    order.update((record.name, record.order) for record in snapshot.normalizations)
    hidden = [record.name for record in hidden_activations(snapshot)]

    def precedence(finding: Finding) -> tuple[float, int, int]:
        stage = 0.5 if _leads(finding, findings) else _stage(finding)
        return stage, order.get(finding.layer, 0), _POSITION.get(finding.problem, len(_POSITION))

    tops: list[Finding] = []
    for finding in sorted(findings, key=precedence):
        causes = [
            index
            for index, top in enumerate(tops)
            if any(_brings(cause, finding, order, hidden) for cause in (top, *top.consequences))
        ]
        if not causes:
            tops.append(finding)
            continue
        nearest = max(causes, key=lambda index: (tops[index].rank > 0, order.get(tops[index].layer, 0)))
        top = tops[nearest]
        severity = max(top.severity, finding.severity, key=SEVERITIES.index)
        tops[nearest] = dataclasses.replace(top, severity=severity, consequences=(*top.consequences, finding))
    return tuple(sorted(tops, key=lambda top: -top.rank))


def _stage(finding: Finding) -> float:
    problem = finding.problem
    if problem in _IN_CODE or (problem == "linearity" and "weighted layers in a row" in finding.evidence):
        return 0
    if problem == "output_mismatch":
        return 1.6 if "initial loss" in finding.evidence else 0
    if _usual_start(finding):
        return 3
    if problem == "poor_initialization" or (problem in _OF_UNITS and finding.step == 0):
        return 1
    if _is_one_sided(finding):
        return 1
    if problem == "exploding_gradient" and finding.step == 0:
        return 1.5
    if problem in ("learning_rate_too_high", "learning_rate_too_low"):
        return 2
    if problem in ALONG_THE_WAY:
        return 4
    return 5 if problem in _AT_LAST else 3


def _leads(finding: Finding, findings: Sequence[Finding]) -> bool:
    """A gradient that vanishes over layers whose weights are of ordinary size: units and depth are the cause."""
    if finding.problem != "vanishing_gradient":
        return False
    if any(other.rank and other.step == 0 and _blocks(other) for other in findings):
        return False
    linear = next((other for other in findings if other.problem == "linearity"), None)
    if linear is None or linear.rank > finding.rank or finding.step > linear.step + AT_ONCE:
        return False
    return of_ordinary_weights(linear) and not _shifted(linear)


def _plain_at_once(cause: Finding) -> bool:
    """What may end a training before it has held for long enough to be more than information."""
    if cause.problem == "bias_shift":
        return cause.step == 0 and cause.evidence["mean energy"] >= ONE_SIDED
    return cause.problem == "exploding_gradient" or (cause.step == 0 and _shifted(cause))


def _usual_start(finding: Finding) -> bool:
    """Signals that fade by weights of an ordinary size: a training that nothing holds back mends that."""
    if finding.problem == "poor_initialization":
        return not finding.evidence["at one layer"] and of_ordinary_weights(finding)
    return finding.problem == "linearity" and of_ordinary_weights(finding) and not _shifted(finding)


def _is_one_sided(finding: Finding) -> bool:
    """Inputs of one sign from the start on, so strongly that it shows at any learning rate."""
    if finding.problem != "bias_shift" or finding.step > 0:
        return False
    energy, drift = finding.evidence["mean energy"], finding.evidence["mean drift in std, highest"]
    return energy >= ONE_SIDED or (energy >= _NEARLY and drift >= _THROWN)


def _stands_alone(finding: Finding) -> bool:
    """What nothing that happens in a training can bring about: calls in the code, weights drawn at a wrong size."""
    if finding.problem == "poor_initialization":
        return finding.evidence["at one layer"] and not of_ordinary_weights(finding)
    return _stage(finding) == 0


def _blocks(finding: Finding) -> bool:
    return finding.problem in ("saturation", "dead_units") or _is_one_sided(finding)


def _shifted(finding: Finding) -> bool:
    """Rectifiers that biases hold on: what they hand on is as large as those biases."""
    return finding.problem == "linearity" and bool(finding.evidence.get("always on"))


def _brings(cause: Finding, finding: Finding, order: Mapping[str | None, int], hidden: Sequence[str]) -> bool:
    if _stands_alone(finding) and cause.problem != "symmetric_weights":
        return False
    if _usual_start(finding) and cause.rank and (cause.problem in _HOLDS_BACK or _is_one_sided(cause)):
        return True
    follows = _FOLLOWS.get(cause.problem, frozenset())
    if cause.problem == "poor_initialization":
        if finding.step > cause.step + AT_ONCE and finding.problem in ("dead_units", "saturation"):
            return False
        if cause.evidence.get("pre-activation std", 0.0) > 1.0:
            follows = follows | _LOUD_START
    elif cause.problem == "unnormalized_input":
        if cause.evidence.get("root mean square", 1.0) < 1.0:
            follows = follows | _FAINT_INPUT
        elif "mean over std of a feature, median" in cause.evidence:
            follows = follows | {"linearity"}
    elif cause.severity == "info" and finding.severity != "info" and not _plain_at_once(cause):
        return False
    if _shifted(cause) or _is_one_sided(cause):
        follows = follows | _LOUD_START | {"dead_units", "vanishing_gradient"}
    if cause.problem == "linearity" and finding.problem == "dead_units" and not _shifted(cause):
        # rectifiers that are always on hand their large mean to the next layer, where it kills half of the units
        pair = [hidden.index(name) for name in (cause.layer, finding.layer) if name in hidden]
        return len(pair) == 2 and pair[1] == pair[0] + 1 and cause.step <= finding.step
    if finding.problem not in follows or cause.step > finding.step:
        return False
    if (
        finding.problem == "linearity"
        and cause.problem in ("saturation", "dead_units")
        and of_ordinary_weights(finding)
    ):
        return True  # before a layer that lets nothing back, weights stay as small as they began
    local = _OF_UNITS | {"poor_initialization", "bias_shift"}
    if cause.problem not in local or finding.problem not in local:
        return True
    return order.get(cause.layer, 0) <= order.get(finding.layer, 0)
