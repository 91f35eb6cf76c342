"""One planted fault shows in many measures: what follows from what."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_tricks.diagnosis.finding import SEVERITIES, Finding, Trait
from lightning_tricks.diagnosis.registry import RULES
from lightning_tricks.diagnosis.rule import ANY, STAGES, Rule, Stage
from lightning_tricks.diagnosis.wrong_start import AT_ONCE, name_by_effect
from lightning_tricks.probes import Snapshot

_ONE_SIDED = {Trait.ONE_SIDED, Trait.NEARLY_ONE_SIDED}
_LOUD_START = frozenset({"exploding_gradient", "non_finite", "learning_rate_too_high", "output_mismatch"})
_LARGE_MEANS = _LOUD_START | {"dead_units", "vanishing_gradient"}
# What a cause of this kind brings about besides what its rule says.
_BRINGS: Mapping[Trait, frozenset[str]] = {
    Trait.LOUD: _LOUD_START,
    Trait.FAINT: frozenset({"linearity", "poor_initialization", "vanishing_gradient"}),
    Trait.OFF_CENTRE: frozenset({"linearity"}),
    Trait.ALWAYS_ON: _LARGE_MEANS,
    Trait.ONE_SIDED: _LARGE_MEANS,
    Trait.NEARLY_ONE_SIDED: _LARGE_MEANS,
}
_LOCAL = {"saturation", "dead_units", "linearity", "poor_initialization", "bias_shift"}
# What may end a training before it has held for long enough to be more than information.
_SURE_AT_ONCE = ("exploding_gradient", "poor_initialization", "unnormalized_input")
# What keeps a usual start from mending, wherever it lies.
_HOLDS_BACK = {
    "symmetric_weights",
    "disconnected_parameters",
    "no_update",
    "stale_gradient",
    "batch_norm_mismatch",
    "learning_rate_too_low",
    "learning_rate_too_high",
    "saturation",
    "over_regularization",
}
_NOT_BY_DEPTH = {"saturation", "dead_units", "over_regularization"}  # these take a gradient away in few layers, too


def fold(findings: Sequence[Finding], snapshot: Snapshot, rules: Sequence[Rule] = RULES) -> tuple[Finding, ...]:
    """Findings with their consequences folded under them, the worst cause first.

    A finding is folded under the nearest cause that can bring it about, is at least as sure and did not begin later.

    Args:
        findings: What the rules found, in any order.
        snapshot: The last probed step, for the order of execution.
        rules: The rules that found it: what brings about what, and what of one stage and layer comes first.
    """
    return _Attribution(name_by_effect(_excused(findings, rules)), snapshot, rules).folded()


def _excused(findings: Sequence[Finding], rules: Sequence[Rule]) -> list[Finding]:
    """The findings with what an excuse brings about as information; what began before the first update is not."""
    causes = {finding.problem for finding in findings if Trait.EXCUSES in finding.traits}
    brought = {problem for rule in rules if rule.problem in causes for problem in rule.brings_about}
    return [
        dataclasses.replace(finding, severity="info")
        if finding.problem in brought and _is_excused(finding)
        else finding
        for finding in findings
    ]


def _is_excused(finding: Finding) -> bool:
    return bool(finding.step) or finding.problem == "learning_rate_too_high"


class _Attribution:
    def __init__(self, findings: Sequence[Finding], snapshot: Snapshot, rules: Sequence[Rule]) -> None:
        self.findings = findings
        self.rules = {rule.problem: rule for rule in rules}
        self.position = {rule.problem: index for index, rule in enumerate(rules)}
        self.brings = {(rule.problem, following) for rule in rules for following in rule.brings_about}
        self.brings |= {(cause, rule.problem) for rule in rules for cause in rule.follows_from}
        records: Sequence[Any] = (*snapshot.weighted, *snapshot.activations, *snapshot.normalizations)
        self.order: dict[str | None, int] = {record.name: record.order for record in records}

    def folded(self) -> tuple[Finding, ...]:
        tops: list[Finding] = []
        for finding in sorted(self.findings, key=self._precedence):
            causes = [top for top in tops if any(self._brings(each, finding) for each in (top, *top.consequences))]
            if not causes:
                tops.append(finding)
                continue
            top = max(causes, key=lambda top: (top.rank > 0, *self._nearness(top, finding), top.rank))
            severity = max(top.severity, finding.severity, key=SEVERITIES.index)
            whole = dataclasses.replace(top, severity=severity, consequences=(*top.consequences, finding))
            tops = [whole if each is top else each for each in tops]
        return tuple(sorted(tops, key=lambda top: (-top.rank, Trait.SLOW not in top.traits)))

    def _nearness(self, cause: Finding, finding: Finding) -> tuple[bool, int]:
        """Where a cause lies: what shows in one layer comes from before it, if anything there brings it about."""
        order = self.order.get(cause.layer, 0)
        return finding.problem not in _LOCAL or order <= self.order.get(finding.layer, 0), order

    def _precedence(self, finding: Finding) -> tuple[int, int, int]:
        stage = "depth" if self._leads(finding) else self._stage(finding)
        position = self.position.get(finding.problem, len(self.position))
        return STAGES.index(stage), self.order.get(finding.layer, 0), position

    def _stage(self, finding: Finding) -> Stage:
        rule = self.rules.get(finding.problem)
        if Trait.IN_CODE in finding.traits:
            return "code"
        if Trait.FIRST_LOSS in finding.traits:
            return "first loss"
        if _usual_start(finding):
            return "units"
        if finding.traits & _ONE_SIDED:
            return "start"
        return "end" if rule is None else rule.stage if finding.step else rule.at_start

    def _leads(self, finding: Finding) -> bool:
        """A gradient that vanishes over layers whose weights are of ordinary size: units and depth are the cause."""
        if finding.problem != "vanishing_gradient":
            return False
        begun = [other for other in self.findings if other.rank and other.step == 0]
        if any(other.problem in _NOT_BY_DEPTH or other.traits & _ONE_SIDED for other in begun):
            return False
        linear = [other for other in self.findings if other.problem == "linearity" and other.rank <= finding.rank]
        return any(finding.step <= other.step + AT_ONCE and _usual_start(other) for other in linear)

    def _brings(self, cause: Finding, finding: Finding) -> bool:
        if (ANY, finding.problem) in self.brings:
            return cause.rank > 0
        if Trait.EXCUSES in cause.traits and not _is_excused(finding):
            return False
        if self._stands_alone(finding) and cause.problem != "symmetric_weights":
            return False
        if _usual_start(finding) and cause.rank and (cause.problem in _HOLDS_BACK or cause.traits & _ONE_SIDED):
            return True
        late = finding.step > cause.step + AT_ONCE and finding.problem in ("dead_units", "saturation")
        if cause.problem == "poor_initialization" and late:
            return False
        at_once = cause.problem in _SURE_AT_ONCE or (
            cause.step == 0 and cause.traits & {Trait.ALWAYS_ON, Trait.ONE_SIDED}
        )
        if cause.severity == "info" and finding.severity != "info" and not at_once:
            return False
        by_kind = any(finding.problem in _BRINGS.get(trait, ()) for trait in cause.traits)
        if cause.step > finding.step or not (by_kind or (cause.problem, finding.problem) in self.brings):
            return False
        local = {cause.problem, finding.problem} <= _LOCAL
        return not local or self.order.get(cause.layer, 0) <= self.order.get(finding.layer, 0)

    def _stands_alone(self, finding: Finding) -> bool:
        """What nothing that happens in a training can bring about: calls in the code, weights drawn at a wrong size."""
        wrong_size = Trait.AT_ONE_LAYER in finding.traits and Trait.ORDINARY_WEIGHTS not in finding.traits
        return wrong_size or self._stage(finding) == "code"


def _usual_start(finding: Finding) -> bool:
    """Signals that fade by weights of an ordinary size: a training that nothing holds back mends that."""
    if finding.problem not in ("poor_initialization", "linearity") or Trait.ORDINARY_WEIGHTS not in finding.traits:
        return False
    return not finding.traits & {Trait.AT_ONE_LAYER, Trait.ALWAYS_ON}
