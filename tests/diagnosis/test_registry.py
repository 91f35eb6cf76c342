"""What there is to find comes from the rules alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lightning_tricks.diagnosis import PROBLEMS, RULES, registry
from lightning_tricks.diagnosis.registry import wording
from lightning_tricks.diagnosis.rule import ANY, KNOWN, STAGES
from lightning_tricks.probes import Snapshot


def test_every_problem_has_one_rule_in_a_file_of_its_name() -> None:
    assert sorted(PROBLEMS) == sorted(rule.problem for rule in RULES)
    assert len(set(PROBLEMS)) == len(PROBLEMS) == 27
    for rule in RULES:
        assert rule.judge.__module__ == f"lightning_tricks.diagnosis.rules.{rule.problem}"


def test_a_file_in_rules_is_all_that_a_new_rule_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud_loss.py").write_text(
        "from lightning_tricks.diagnosis import Finding, rule\n"
        "@rule('loud_loss', 'end', heading='loud loss', table=(99, 'train for longer'))\n"
        "def find_loud_loss(history):\n"
        '    """The loss is over 9."""\n'
        "    return [Finding('loud_loss', None, 'warning', s.step) for s in history if s.loss > 9][-1:]\n"
    )
    known = dict(KNOWN)
    monkeypatch.setattr(registry.package, "__path__", [*registry.package.__path__, str(tmp_path)])
    try:
        rules = registry._discovered()
        assert [rule.problem for rule in rules if rule not in RULES] == ["loud_loss"]
        assert wording("loud_loss").heading == "loud loss"
        assert [finding.step for finding in rules[-1]([Snapshot(4, loss=10.0)])] == [4]
    finally:
        KNOWN.clear()
        KNOWN.update(known)
        sys.modules.pop(f"{registry.package.__name__}.loud_loss", None)


def test_every_problem_has_words() -> None:
    for rule in RULES:
        assert rule.words.heading
        assert rule.words.clause
        assert "_" not in rule.words.heading + rule.words.clause + rule.means
    assert wording("bias_shift").heading == "bias shift (bias problem)"
    assert wording("not_of_here").clause == "not of here"


def test_rules_bring_about_what_there_is() -> None:
    for rule in RULES:
        assert rule.brings_about | rule.follows_from - {ANY} <= set(PROBLEMS) - {rule.problem}


def test_causes_come_first() -> None:
    stages = [STAGES.index(rule.stage) for rule in RULES]
    assert stages == sorted(stages)
    assert len({(rule.stage, rule.order) for rule in RULES}) == len(RULES)  # no two for one place
