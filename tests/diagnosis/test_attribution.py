"""Consequences are folded under their cause, and only there."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_tricks.diagnosis import Finding
from lightning_tricks.diagnosis.attribution import fold
from lightning_tricks.probes import ActivationRecord, Snapshot, WeightedRecord

LAYERS = 5
SNAPSHOT = Snapshot(
    250,
    activations=tuple(
        ActivationRecord(f"{2 * k + 1}", "tanh", order=2 * k + 2, units=8, patterns=64) for k in range(LAYERS - 1)
    ),
    weighted=tuple(WeightedRecord(f"{2 * k}", "linear", order=2 * k + 1) for k in range(LAYERS)),
)
SUDDEN = {"weight scale": 1e-3, "at one layer": True, "activation layer": "9", "pre-activation std": 1e-3}
SHIFTED = {"always on": True, "weight scale": 0.6, "units": "relu"}
FAINT = {"weight scale": 0.6, "units": "sigmoid"}
ONE_SIDED = {"mean energy": 0.99, "mean drift in std, highest": 0.5}
LARGE_INPUT = {"root mean square": 30.0}


def found(problem: Any, layer: str | None, step: int = 0, severity: Any = "warning", **evidence: Any) -> Finding:
    return Finding(problem, layer, severity, step, evidence)


@pytest.mark.parametrize(
    ("cause", "consequence"),
    [
        (found("dead_units", "3"), found("vanishing_gradient", "4")),
        (found("saturation", "3"), found("bias_shift", "4", **{"mean energy": 0.7, "mean drift in std, highest": 2.0})),
        (found("saturation", "5"), found("linearity", "1", 50, **FAINT)),  # weights before it do not train
        (found("linearity", "1", **SHIFTED), found("learning_rate_too_high", None)),
        (found("linearity", "1", **SHIFTED), found("output_mismatch", "8", **{"initial loss": 40.0})),
        (found("bias_shift", "4", **ONE_SIDED), found("saturation", "5")),
        (found("bias_shift", "4", **ONE_SIDED), found("learning_rate_too_high", None, 1)),
        (found("learning_rate_too_high", None), found("dead_units", "3", 2)),
        (found("learning_rate_too_high", None, 4), found("non_finite", "0", 8, "critical")),
        (found("exploding_gradient", "0", severity="info"), found("non_finite", "2", 1, "critical")),
        (found("exploding_gradient", "0"), found("output_mismatch", "8", **{"initial loss": 1e5})),
        (found("unnormalized_input", "0", **LARGE_INPUT), found("learning_rate_too_high", None)),
        (found("unnormalized_input", "0", **{"root mean square": 1e-3}), found("vanishing_gradient", "0")),
        (found("vanishing_gradient", "0"), found("linearity", "1", **FAINT)),  # depth, not the weights
        (found("batch_norm_mismatch", "2"), found("overfitting", None, 100)),
        (found("symmetric_weights", "2"), found("learning_rate_too_low", None)),
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
        (found("unnormalized_input", "0", **LARGE_INPUT), found("output_mismatch", "8", function="softmax")),
        (found("unnormalized_input", "0", **LARGE_INPUT), found("vanishing_gradient", "0")),
        (found("disconnected_parameters", "0"), found("batch_norm_mismatch", "2")),
        (found("saturation", "1"), found("poor_initialization", "6", **SUDDEN)),
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
        found("bias_shift", "4", **ONE_SIDED),
        found("saturation", "5"),
        found("vanishing_gradient", "2", 16),
    ]
    (top,) = fold(chain, SNAPSHOT)
    assert [finding.problem for finding in top.consequences] == ["saturation", "vanishing_gradient"]


def test_the_worst_cause_comes_first() -> None:
    mild, bad = found("unnormalized_input", "0", **LARGE_INPUT), found("non_finite", "8", 50, "critical")
    other = found("output_mismatch", "8", 0, "critical", function="softmax")
    assert [finding.severity for finding in fold([mild, other], SNAPSHOT)] == ["critical", "warning"]
    assert fold([mild, bad], SNAPSHOT)[0].severity == "critical"
    assert fold([], SNAPSHOT) == ()
