"""Consequences are folded under their cause, and only there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from lightning_tricks.diagnosis import Finding, Rule, Trait, find
from lightning_tricks.diagnosis.attribution import fold
from lightning_tricks.probes import ActivationRecord, Snapshot, WeightedRecord

from .sick import SICK

LAYERS = 5
SNAPSHOT = Snapshot(
    250,
    activations=tuple(
        ActivationRecord(f"{2 * k + 1}", "tanh", order=2 * k + 2, units=8, patterns=64) for k in range(LAYERS - 1)
    ),
    weighted=tuple(WeightedRecord(f"{2 * k}", "linear", order=2 * k + 1) for k in range(LAYERS)),
)
AT_ONE_LAYER, ORDINARY, FIRST_LOSS = Trait.AT_ONE_LAYER, Trait.ORDINARY_WEIGHTS, Trait.FIRST_LOSS
ALWAYS_ON, ONE_SIDED, NEARLY = Trait.ALWAYS_ON, Trait.ONE_SIDED, Trait.NEARLY_ONE_SIDED


def found(problem: str, layer: str | None, step: int = 0, severity: Any = "warning", *traits: Trait) -> Finding:
    return Finding(problem, layer, severity, step, traits=frozenset(traits))


def sure(problem: str, layer: str | None, *traits: Trait, step: int = 0) -> Finding:
    return found(problem, layer, step, "warning", *traits)


@pytest.mark.parametrize(
    ("cause", "consequence"),
    [
        (found("dead_units", "3"), found("vanishing_gradient", "4")),
        (found("saturation", "3"), found("bias_shift", "4")),
        (found("saturation", "5"), sure("linearity", "1", ORDINARY, step=50)),  # weights before it do not train
        (sure("linearity", "1", ALWAYS_ON, ORDINARY), found("learning_rate_too_high", None)),
        (sure("linearity", "1", ALWAYS_ON, ORDINARY), sure("output_mismatch", "8", FIRST_LOSS)),
        (sure("bias_shift", "4", ONE_SIDED), found("saturation", "5")),
        (sure("bias_shift", "4", ONE_SIDED), found("learning_rate_too_high", None, 1)),
        (found("learning_rate_too_high", None), found("dead_units", "3", 2)),
        (found("learning_rate_too_high", None, 4), found("non_finite", "0", 8, "critical")),
        (found("exploding_gradient", "0", severity="info"), found("non_finite", "2", 1, "critical")),
        (found("exploding_gradient", "0"), sure("output_mismatch", "8", FIRST_LOSS)),
        (sure("unnormalized_input", "0"), found("learning_rate_too_high", None)),
        (sure("unnormalized_input", "0", Trait.FAINT), found("vanishing_gradient", "0")),
        (found("vanishing_gradient", "0"), sure("linearity", "1", ORDINARY)),  # depth, not the weights
        (found("batch_norm_mismatch", "2"), found("overfitting", None, 100)),
        (found("symmetric_weights", "2"), found("learning_rate_too_low", None)),
        (sure("unnormalized_input", "0", Trait.OFF_CENTRE), sure("linearity", "1")),
        (sure("poor_initialization", "2", Trait.LOUD), sure("non_finite", "8", step=3)),
        (sure("bias_shift", "4", NEARLY), sure("vanishing_gradient", "0", step=3)),
    ],
)
def test_folded(cause: Finding, consequence: Finding) -> None:
    for findings in ([cause, consequence], [consequence, cause]):
        (top,) = fold(findings, SNAPSHOT)
        assert (top.problem, top.layer) == (cause.problem, cause.layer)
        assert [finding.problem for finding in top.consequences] == [consequence.problem]
        assert top.rank == max(cause.rank, consequence.rank)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (sure("unnormalized_input", "0"), sure("output_mismatch", "8")),
        (sure("unnormalized_input", "0"), found("vanishing_gradient", "0")),
        (found("disconnected_parameters", "0"), found("batch_norm_mismatch", "2")),
        (found("saturation", "1"), sure("poor_initialization", "6", AT_ONE_LAYER)),
        (found("dead_units", "5"), found("saturation", "1")),
        (found("dead_units", "3", 50), found("vanishing_gradient", "0", 0)),  # it began later
        (found("dead_units", "3", severity="info"), found("vanishing_gradient", "0")),
        (found("learning_rate_too_high", None, 10), found("dead_units", "3", 0)),
    ],
)
def test_two_causes(one: Finding, other: Finding) -> None:
    assert {finding.problem for finding in fold([one, other], SNAPSHOT)} == {one.problem, other.problem}


def test_a_consequence_of_a_consequence_is_under_the_same_cause() -> None:
    chain = [
        sure("bias_shift", "4", ONE_SIDED),
        found("saturation", "5"),
        found("vanishing_gradient", "2", 16),
    ]
    (top,) = fold(chain, SNAPSHOT)
    assert [finding.problem for finding in top.consequences] == ["saturation", "vanishing_gradient"]


def test_the_worst_cause_comes_first() -> None:
    mild, bad = sure("unnormalized_input", "0"), found("non_finite", "8", 50, "critical")
    other = found("output_mismatch", "8", 0, "critical")
    assert [finding.severity for finding in fold([mild, other], SNAPSHOT)] == ["critical", "warning"]
    assert fold([mild, bad], SNAPSHOT)[0].severity == "critical"
    assert fold([], SNAPSHOT) == ()


def names(findings: Sequence[Finding]) -> list[Any]:
    return [(f.problem, f.layer, f.severity, f.step, names(f.consequences)) for f in findings]


@pytest.mark.parametrize("name", SICK)
def test_attribution_reads_no_word_of_the_evidence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Findings of real trainings, with every name in their evidence another one and every text gone."""
    history, judge = SICK[name].history(), Rule.__call__
    as_it_is = names(find(history))

    def scrambled(rule: Rule, history: Sequence[Snapshot]) -> list[Finding]:
        return [
            dataclasses.replace(
                finding, evidence={f"number {i}": v for i, v in enumerate(finding.evidence.values())}, explanation=""
            )
            for finding in judge(rule, history)
        ]

    monkeypatch.setattr(Rule, "__call__", scrambled)
    assert all("number 0" in finding.evidence for finding in find(history))
    assert names(find(history)) == as_it_is


def test_what_shows_in_a_layer_comes_from_what_lies_before_it() -> None:
    """The raw input saturates the first layer; the output that does not fit the loss lies behind it."""
    tops = fold([found("unnormalized_input", "0"), found("output_mismatch", "8"), found("saturation", "1")], SNAPSHOT)
    assert {top.problem: [each.problem for each in top.consequences] for top in tops} == {
        "unnormalized_input": ["saturation"],
        "output_mismatch": [],
    }


def test_of_causes_at_one_layer_the_worse_has_what_follows() -> None:
    worse = found("vanishing_gradient", "0", 0, "critical")
    milder, follows = found("unnormalized_input", "0"), found("not_learning", None, 110)
    top, other = fold([milder, worse, follows], SNAPSHOT)
    assert (top.problem, [each.problem for each in top.consequences]) == ("vanishing_gradient", ["not_learning"])
    assert (other.problem, other.consequences) == ("unnormalized_input", ())
