"""A finding: one problem of one layer, with the numbers that show it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from lightning_tricks.probes.records.record import to_json

Problem = Literal[
    "linearity",
    "saturation",
    "dead_units",
    "vanishing_gradient",
    "exploding_gradient",
    "bias_shift",
    "poor_initialization",
    "symmetric_weights",
    "unnormalized_input",
    "non_finite",
    "disconnected_parameters",
    "learning_rate_too_high",
    "learning_rate_too_low",
    "output_mismatch",
    "overfitting",
    "batch_norm_mismatch",
]
Severity = Literal["info", "warning", "critical"]
PROBLEMS: tuple[str, ...] = get_args(Problem)
SEVERITIES: tuple[str, ...] = get_args(Severity)


@dataclasses.dataclass(frozen=True)
class Remedy:
    """Something to do about a finding.

    Args:
        action: What to do, one word: ``"initialize"``, ``"standardize_input"``, ``"swap_activation"`` ...
        text: The same as advice to a person, with the line of code where there is one.
        layer: The layer it is to be done to; None for the whole model or the training.
    """

    action: str
    text: str
    layer: str | None = None

    def __str__(self) -> str:
        return self.text


@dataclasses.dataclass(frozen=True)
class Finding:
    """One problem.

    Args:
        problem: One of the names in PROBLEMS.
        layer: The first faulty layer by its recorded name, or None for the whole model.
        severity: ``"info"`` < ``"warning"`` < ``"critical"``; a healthy model has none above info.
        step: The optimiser step at which it began.
        evidence: The measured numbers, by name.
        explanation: Two sentences: what is wrong, and why it does harm.
        remedies: What to do, the best first.
        consequences: Findings that follow from this one.
    """

    problem: Problem
    layer: str | None
    severity: Severity
    step: int
    evidence: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    explanation: str = ""
    remedies: tuple[Remedy, ...] = ()
    consequences: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if self.problem not in PROBLEMS:
            raise ValueError(f"unknown problem {self.problem!r}; known are {', '.join(PROBLEMS)}")
        if self.severity not in SEVERITIES:
            raise ValueError(f"unknown severity {self.severity!r}; known are {', '.join(SEVERITIES)}")

    @property
    def rank(self) -> int:
        """0 for info, 1 for warning, 2 for critical."""
        return SEVERITIES.index(self.severity)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "problem": self.problem,
            "layer": self.layer,
            "severity": self.severity,
            "step": self.step,
            "evidence": to_json(dict(self.evidence)),
            "explanation": self.explanation,
            "remedies": [dataclasses.asdict(remedy) for remedy in self.remedies],
            "consequences": [finding.to_dict() for finding in self.consequences],
        }

    def __str__(self) -> str:
        where = f" at {self.layer}" if self.layer else ""
        advice = f" What to do: {self.remedies[0]}." if self.remedies else ""
        return f"{self.severity}: {self.problem}{where}, since step {self.step}. {self.explanation}{advice}"
