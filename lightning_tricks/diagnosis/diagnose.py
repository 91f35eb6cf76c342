"""From a history of snapshots to findings: every rule once, then consequences under their causes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from lightning_tricks.diagnosis.attribution import fold
from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.diagnosis.registry import as_ignored, is_ignored, with_rules
from lightning_tricks.diagnosis.rule import Rule
from lightning_tricks.probes import Snapshot

_FIRST, _BETWEEN, _LATEST = 8, 24, 16  # snapshots that a rule is given of a long history where it reads it thinned


def diagnose(history: Sequence[Snapshot], *, ignore: Collection[str] = (), rules: Sequence[Rule] = ()) -> Diagnosis:
    """What the rules say to stored snapshots: the same findings as the callback's for the same steps.

    Args:
        history: Snapshots in the order of their steps.
        ignore: Problems that are not to be found, also of some layers only, as ``"dead_units:encoder.*"``.
        rules: Rules of your own, made by ``lightning_tricks.rule``, beside those of the package.

    Raises:
        TypeError: ``history`` holds other things than snapshots.
        ValueError: ``ignore`` names an unknown problem, or a rule one that has a rule already.

    >>> diagnose([]).state
    'unknown'
    """
    if not isinstance(history, Iterable) or not all(isinstance(each, Snapshot) for each in history):
        holds = isinstance(getattr(history, "history", None), list)
        hint = ": give its history" if holds else ": give a list of them" if isinstance(history, Snapshot) else ""
        kind = type(history).__name__
        raise TypeError(f"history must be a list of snapshots, such as doctor.history, got {kind}{hint}")
    return Diagnosis(list(find(history, ignore, rules)), list(history))


@np.errstate(all="ignore")  # NaN and Inf are what is looked for
def find(
    history: Sequence[Snapshot],
    ignore: Collection[str] = (),
    rules: Sequence[Rule] = (),
    brought: Sequence[Finding] = (),
) -> tuple[Finding, ...]:
    """All findings of a history, the cause first, without the problems named in ``ignore``.

    Steps after the first NaN or Inf are not judged: every measure there is one as well. ``brought``: findings of
    experiments, which stand in place of what rules say less surely of the same problem.

    Raises:
        ValueError: ``ignore`` names an unknown problem, or a rule one that has a rule already.
    """
    judging, ignore = with_rules(rules, ignore), as_ignored(ignore)
    if not history:
        return ()
    findings = [finding for rule in judging if rule.reads == "whole" for finding in rule(history)]
    broken = min((finding.step for finding in findings if finding.problem == "non_finite"), default=math.inf)
    before = [snapshot for snapshot in history if snapshot.step < broken]
    if before:
        given = {"finite": before, "thinned": thinned(before), "last losses": [*before, *_last_losses(broken, history)]}
        findings += [finding for rule in judging if rule.reads in given for finding in rule(given[rule.reads])]
    sure = {finding.problem: finding.rank for finding in brought}
    findings = [finding for finding in findings if finding.rank >= sure.get(finding.problem, 0)]
    kept = [each for each in (*findings, *brought) if not is_ignored(each.problem, each.layer, ignore)]
    return fold(kept, (before or list(history))[-1], judging)


def thinned(history: Sequence[Snapshot]) -> list[Snapshot]:
    """The first snapshots, the latest, and some evenly between, so that a rule's cost does not grow with a training.

    What lies in the code lies there at every step. The distance between snapshots is a power of two: those once left
    out stay so.

    >>> len(thinned([Snapshot(step) for step in range(1000)])) <= 48
    True
    """
    if len(history) <= _FIRST + _BETWEEN + _LATEST:
        return list(history)
    middle = range(_FIRST, len(history) - _LATEST)
    apart = 1
    while len(middle) > apart * _BETWEEN:
        apart *= 2
    return [*history[:_FIRST], *(history[i] for i in middle if i % apart == 0), *history[-_LATEST:]]


def _last_losses(broken: float, history: Sequence[Snapshot]) -> list[Snapshot]:
    """The losses between the last clean snapshot and the first NaN or Inf: whether it came by large steps."""
    at = [snapshot for snapshot in history if snapshot.step == broken][:1]
    losses = tuple(loss for snapshot in at for loss in snapshot.recent_losses if not math.isnan(loss))
    return [Snapshot(at[0].step, losses[-1], recent_losses=losses)] if losses else []
