"""What there is to find comes from the rules alone."""

from __future__ import annotations

from lightning_tricks.diagnosis import PROBLEMS, RULES
from lightning_tricks.diagnosis.registry import wording
from lightning_tricks.diagnosis.rule import STAGES


def test_every_problem_has_one_rule_in_a_file_of_its_name() -> None:
    assert sorted(PROBLEMS) == sorted(rule.problem for rule in RULES)
    assert len(set(PROBLEMS)) == len(PROBLEMS) == 16
    for rule in RULES:
        assert rule.judge.__module__ == f"lightning_tricks.diagnosis.rules.{rule.problem}"


def test_every_problem_has_words() -> None:
    for rule in RULES:
        assert rule.words.heading
        assert rule.words.clause
        assert "_" not in rule.words.heading + rule.words.clause + rule.means
    assert wording("bias_shift").heading == "bias shift (bias problem)"
    assert wording("not_of_here").clause == "not of here"


def test_rules_bring_about_what_there_is() -> None:
    for rule in RULES:
        assert rule.brings_about | rule.follows_from <= set(PROBLEMS) - {rule.problem}


def test_causes_come_first() -> None:
    stages = [STAGES.index(rule.stage) for rule in RULES]
    assert stages == sorted(stages)
    assert len({(rule.stage, rule.order) for rule in RULES}) == len(RULES)  # no two for one place
