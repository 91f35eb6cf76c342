"""What a doctor says: each finding once, and rules of the user's own that fail are left out."""

import pytest

import lightning_tricks as lt
from lightning_tricks.watch.judge import Judge


@lt.rule("always", "code", heading="always", remedies=[lt.Remedy("none", "nothing")])
def find_always(history):
    yield lt.Finding("always", None, "warning", history[-1].step, {})


@lt.rule("broken", "code", heading="broken", remedies=[lt.Remedy("none", "nothing")])
def find_broken(history):
    raise ZeroDivisionError
    yield


def test_a_finding_is_news_once_and_again_in_a_training_that_begins_anew():
    judge, history = Judge(rules=find_always), [lt.Snapshot(0), lt.Snapshot(1)]
    assert [finding.problem for finding in judge.news(history)] == ["always"]
    judge.changed()
    assert judge.news(history) == []
    state = judge.own_state()
    assert [finding.problem for finding in judge.news(history[:1])] == ["always"]
    other = Judge(rules=find_always)
    other.restore(state)
    assert other.news(history) == []


def test_a_rule_that_fails_is_left_out():
    judge = Judge(rules=[find_broken, find_always])
    with pytest.warns(UserWarning, match="left out from here on"):
        found = judge.diagnosis([lt.Snapshot(0)])
    assert [finding.problem for finding in found.findings] == ["always"]
    assert judge.rules == (find_always,)


def test_the_rules_are_asked_once_for_every_change():
    judge = Judge()
    first = judge.diagnosis([lt.Snapshot(0)])
    assert judge.diagnosis([lt.Snapshot(0)]) is first
    judge.changed()
    assert judge.diagnosis([lt.Snapshot(0)]) is not first
