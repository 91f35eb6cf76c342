"""A wrong start is named by what it does."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_tricks.diagnosis import Finding
from lightning_tricks.diagnosis.remedies import CLIP, initialize
from lightning_tricks.diagnosis.wrong_start import name_by_effect


def start(scale: float, *, sudden: bool, step: int = 0) -> Finding:
    evidence = {"weight scale": scale, "at one layer": sudden, "activation layer": "3"}
    return Finding("poor_initialization", "2", "warning", step, evidence, remedies=(initialize(),))


def other(problem: Any, layer: str, step: int = 0, severity: Any = "info", **evidence: Any) -> Finding:
    return Finding(problem, layer, severity, step, evidence, remedies=(CLIP,))


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


def test_without_a_wrong_start_nothing_changes() -> None:
    assert name_by_effect([LINEAR, VANISHING]) == [LINEAR, VANISHING]
