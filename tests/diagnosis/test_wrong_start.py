"""A wrong start is named by what it does."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lightning_tricks.diagnosis import Criterion, Finding, Trait
from lightning_tricks.diagnosis.history.layers import is_ordinary
from lightning_tricks.diagnosis.remedies import CLIP, initialize
from lightning_tricks.diagnosis.wrong_start import name_by_effect


def start(scale: float, *, sudden: bool, step: int = 0) -> Finding:
    kinds = {Trait.AT_ONE_LAYER: sudden, Trait.ORDINARY_WEIGHTS: is_ordinary(scale)}
    traits = frozenset(trait for trait, so in kinds.items() if so)
    evidence = {"weight scale": scale, "at one layer": sudden, "activation layer": "3"}
    remedies = (initialize(),)
    return Finding("poor_initialization", "2", "warning", step, evidence, "", remedies, traits=traits, related="3")


def other(problem: Any, layer: str, step: int = 0, severity: Any = "info", **evidence: Any) -> Finding:
    traits = frozenset({Trait.SCALE_FREE_UNITS} if evidence.get("units") == "relu" else ())
    return Finding(problem, layer, severity, step, evidence, remedies=(CLIP,), traits=traits)


LINEAR = other("linearity", "3", units="tanh", linearity=1.0)
RECTIFIERS = other("linearity", "3", units="relu", linearity=1.0)
SATURATED = other("saturation", "3", saturation=0.9)
VANISHING = other("vanishing_gradient", "0")
EXPLODING = other("exploding_gradient", "0")


@pytest.mark.parametrize(
    ("begin", "others", "names"),
    [
        (start(1e-3, sudden=True), [LINEAR], ["linearity"]),
        (start(60.0, sudden=True), [SATURATED], ["saturation"]),
        (start(1e-3, sudden=True), [RECTIFIERS], ["poor_initialization", "linearity"]),
        (start(1e-3, sudden=True), [VANISHING], ["poor_initialization", "vanishing_gradient"]),
        (start(0.06, sudden=False), [LINEAR, VANISHING], ["linearity", "vanishing_gradient"]),
        (start(0.06, sudden=False), [VANISHING], ["poor_initialization", "vanishing_gradient"]),
        (start(0.001, sudden=False), [LINEAR], ["linearity"]),
        (start(0.001, sudden=False), [RECTIFIERS], ["poor_initialization", "linearity"]),
        (start(0.58, sudden=False), [VANISHING], ["vanishing_gradient"]),
        (start(8.0, sudden=False), [EXPLODING], ["exploding_gradient"]),
        (start(0.58, sudden=False), [], ["poor_initialization"]),
        (start(1e-3, sudden=True), [other("linearity", "3", 50, units="tanh")], ["poor_initialization", "linearity"]),
        (start(1e-3, sudden=True), [other("linearity", "9", units="tanh")], ["poor_initialization", "linearity"]),
    ],
)
def test_which_name_is_given(begin: Finding, others: list[Finding], names: list[str]) -> None:
    assert sorted(finding.problem for finding in name_by_effect([begin, *others])) == sorted(names)


def test_the_finding_that_stays_takes_over_what_the_other_knew() -> None:
    (named,) = name_by_effect([start(1e-3, sudden=True), LINEAR])
    assert named.severity == "warning"
    assert named.remedies == (initialize(),)
    assert named.evidence["linearity"] == 1.0
    assert named.evidence["weight scale"] == 1e-3


def test_units_that_the_faulty_weights_feed_are_meant_by_either_name() -> None:
    """By the activation behind the weights, or by the weights before the units, where the activation has two calls."""
    fed = dataclasses.replace(LINEAR, layer="block.tanh_2", related="2")
    assert [finding.problem for finding in name_by_effect([start(1e-3, sudden=True), fed])] == ["linearity"]


def test_the_weights_are_those_of_the_start() -> None:
    (named,) = name_by_effect([start(0.58, sudden=False), VANISHING])
    assert named.traits == {Trait.ORDINARY_WEIGHTS}
    (named,) = name_by_effect([start(1e-3, sudden=True), LINEAR])
    assert named.traits == frozenset()


def test_without_a_wrong_start_nothing_changes() -> None:
    assert name_by_effect([LINEAR, VANISHING]) == [LINEAR, VANISHING]


def test_numbers_that_are_taken_over_keep_their_layer():
    start = Finding(
        "poor_initialization",
        "net.8",
        "warning",
        0,
        traits=frozenset({Trait.ORDINARY_WEIGHTS}),
        decided_by=(Criterion("pre-activation std", 0.01, "<", 0.03),),
    )
    effect = Finding(
        "vanishing_gradient", "net.0", "critical", 0, decided_by=(Criterion("shrinks to", 1e-9, "<", 1e-3),)
    )
    (named,) = name_by_effect([start, effect])
    assert [criterion.name for criterion in named.decided_by] == ["shrinks to", "pre-activation std at net.8"]
