"""A finding says which numbers decided, and how far they are from their thresholds."""

from __future__ import annotations

import json
import math

import pytest

from lightning_tricks.diagnosis import PROBLEMS, RULES, Criterion, Finding, Trait, find

from .sick import SICK


def test_there_is_a_sick_training_for_every_problem() -> None:
    assert {sick.problem for sick in SICK.values()} == set(PROBLEMS)


@pytest.mark.parametrize("name", SICK)
def test_every_number_that_decided_is_on_the_bad_side_of_its_threshold(name: str) -> None:
    sick = SICK[name]
    (rule,) = (rule for rule in RULES if rule.problem == sick.problem)
    history = sick.history()
    judged = rule(history)
    assert judged
    for finding in (*judged, *(f for top in find(history) for f in (top, *top.consequences))):
        assert finding.decided_by
        for criterion in finding.decided_by:
            assert criterion.holds, f"{finding.problem}: {criterion}"
            assert str(criterion) in finding.why()
        assert json.loads(json.dumps(finding.to_dict()))["decided_by"][0]["name"] == finding.decided_by[0].name


@pytest.mark.parametrize(
    ("criterion", "text"),
    [
        (Criterion("linearity", 0.9997, ">=", 0.99), "linearity 0.9997, threshold 0.99: over by 0.0097"),
        (Criterion("grows to", 5000.0, ">", 100.0), "grows to 5000, threshold 100: over by a factor of 50"),
        (Criterion("shrinks to", 1e-9, "<", 1e-3), "shrinks to 1e-09, threshold 0.001: under by a factor of 1e+06"),
        (Criterion("overflows", 0.0, "<", 1.0), "overflows 0, threshold 1: under by 1"),
        (Criterion("share", 0.5, ">=", 0.5), "share 0.5, threshold 0.5: on it"),
        (Criterion("loss", math.nan, ">", 2.0), "loss nan, threshold 2: not known"),
        (Criterion("loss", math.inf, ">", 2.0), "loss inf, threshold 2: over by a factor of inf"),
    ],
)
def test_a_criterion_says_how_far(criterion: Criterion, text: str) -> None:
    assert str(criterion) == text


def test_a_number_that_decided_twice_is_named_once() -> None:
    number = Criterion("linearity", 1.0, ">=", 0.9)
    finding = Finding("linearity", "1", "warning", 0, decided_by=(number, number))
    assert finding.why().count("linearity 1, threshold 0.9") == 1


def test_why_names_the_traits() -> None:
    traits = frozenset({Trait.ALWAYS_ON, Trait.ORDINARY_WEIGHTS})
    finding = Finding("linearity", "1", "warning", 0, traits=traits)
    assert finding.why().splitlines()[-1] == "- traits: always on, ordinary weights"
    assert finding.to_dict()["traits"] == ["always on", "ordinary weights"]


def test_a_problem_is_a_name_known_or_not() -> None:
    assert Finding("of_another_version", None, "info", 0).problem == "of_another_version"
    with pytest.raises(ValueError, match="problem must be a name such as"):
        Finding("two words", None, "info", 0)
