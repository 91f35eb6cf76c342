"""A finding: one problem of one layer, with the numbers that show it."""

from __future__ import annotations

import dataclasses
import enum
import math
import operator
from collections.abc import Mapping
from typing import Any, Literal, get_args

from lightning_tricks.diagnosis.experiment import Example, Experiment
from lightning_tricks.probes.records.record import to_json

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[str, ...] = get_args(Severity)
Comparison = Literal[">", ">=", "<", "<="]
_COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


class Trait(enum.Enum):
    """What a finding is like, where causes and consequences hang on it: set by the rules, read by attribution."""

    IN_CODE = "in code"  # calls that no training changes
    FIRST_LOSS = "at the first loss"  # a network that begins sure of what is wrong
    AT_ONE_LAYER = "at one layer"  # by the weights of this layer, not from layer to layer
    ORDINARY_WEIGHTS = "ordinary weights"  # of a size that some scheme gives
    SCALE_FREE_UNITS = "scale-free units"  # rectifiers: faint signals make them no more linear than loud ones
    ALWAYS_ON = "always on"  # rectifiers that biases hold on: what they hand on is as large as those biases
    ONE_SIDED = "one-sided"  # inputs of one sign from the start on, so strongly that it shows at any learning rate
    NEARLY_ONE_SIDED = "nearly one-sided"  # inputs of one sign by which an update also throws the means
    LOUD = "loud"  # signals over their healthy size
    FAINT = "faint"  # signals under it
    SLOW = "slow"  # a training that learns, but lost steps by how it began
    OFF_CENTRE = "off centre"  # signals whose mean is larger than they vary
    SAME_INPUT = "same input"  # every pattern that comes in is the same
    WRONG_LABELS = "wrong labels"  # some of the targets contradict others
    LAYOUT = "layout"  # the axes of the input lie otherwise than the first layer reads them
    PADDING = "padding"  # what stands behind the end of a sequence is read like the sequence
    LEFT_BEHIND = "left behind"  # what augmentation moved has a target that it did not move
    BY_HEART = "by heart"  # what the training learns says nothing about what it has not seen
    EXCUSES = "excuses what follows"  # what it brings about is no fault of its own: information


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A measured number that decided, and the threshold that it is beyond.

    >>> print(Criterion("linearity", 0.9997, ">=", 0.99))
    linearity 0.9997, threshold 0.99: over by 0.0097
    >>> print(Criterion("shrinks to", 1e-6, "<", 1e-3))
    shrinks to 1e-06, threshold 0.001: under by a factor of 1e+03
    """

    name: str
    value: float
    comparison: Comparison
    threshold: float

    @property
    def holds(self) -> bool:
        """Whether the value is on the bad side."""
        return bool(_COMPARE[self.comparison](self.value, self.threshold))

    def __str__(self) -> str:
        told = f"{_apart(self.name)} {self.value:.4g}, threshold {self.threshold:.4g}"
        if math.isnan(self.value) or math.isnan(self.threshold) or self.value == self.threshold:
            return f"{told}: {'on it' if self.value == self.threshold else 'not known'}"
        side = "over" if self.value > self.threshold else "under"
        small, large = sorted((abs(self.value), abs(self.threshold)))
        by = f"{abs(self.value - self.threshold):.2g}"
        if self.value * self.threshold > 0 and large >= 2 * small:
            by = f"a factor of {large / small:.3g}"
        return f"{told}: {side} by {by}"


def _apart(name: str) -> str:
    """The layer at the end of a name, which may be a digit, apart from the number behind it.

    >>> _apart("std at 4"), _apart("std at net.4"), _apart("std")
    ('std at layer 4:', 'std at net.4:', 'std')
    """
    what, found, layer = name.rpartition(" at ")
    place = f"layer {layer}" if layer.isdigit() else layer
    return f"{what} at {place}:" if found and " " not in layer else name


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
        problem: The name of a rule's problem, such as ``"linearity"``; one that no rule here knows is accepted too.
        layer: The first faulty layer by its recorded name, or None for the whole model.
        severity: ``"info"`` < ``"warning"`` < ``"critical"``; a healthy model has none above info.
        step: The optimiser step at which it began.
        evidence: The measured numbers, by name.
        explanation: Two sentences: what is wrong, and why it does harm.
        remedies: What to do, the best first.
        consequences: Findings that follow from this one.
        traits: What it is like, for attribution.
        related: The layer it hangs together with: of units the weighted layer before them, of weights the activation.
        decided_by: The numbers that decided, with their thresholds.
        proof: An experiment that showed it, or that showed what the cure brings.

    Raises:
        ValueError: An unknown severity, or a problem that is no name.
    """

    problem: str
    layer: str | None
    severity: Severity
    step: int
    evidence: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    explanation: str = ""
    remedies: tuple[Remedy, ...] = ()
    consequences: tuple[Finding, ...] = ()
    traits: frozenset[Trait] = frozenset()
    related: str | None = None
    decided_by: tuple[Criterion, ...] = ()
    proof: Experiment | None = None

    def __post_init__(self) -> None:
        if not self.problem.isidentifier():
            raise ValueError(f"problem must be a name such as 'dead_units', got {self.problem!r}")
        if self.severity not in SEVERITIES:
            raise ValueError(f"unknown severity {self.severity!r}; known are {', '.join(SEVERITIES)}")

    @property
    def _title(self) -> str:
        return f"{self.severity}: {self.problem}{f' at {self.layer}' if self.layer else ''}"

    @property
    def rank(self) -> int:
        """0 for info, 1 for warning, 2 for critical."""
        return SEVERITIES.index(self.severity)

    def why(self) -> str:
        """The numbers that decided, each with its threshold and how far it is from that, the traits, and the proof.

        >>> print(Finding("linearity", "net.1", "info", 0, decided_by=(Criterion("linearity", 1.0, ">=", 0.9),)).why())
        info: linearity at net.1
        - linearity 1, threshold 0.9: over by 0.1
        """
        lines = [self._title, *dict.fromkeys(f"- {criterion}" for criterion in self.decided_by)]
        if self.traits:
            lines.append(f"- traits: {', '.join(sorted(trait.value for trait in self.traits))}")
        if self.proof is not None:
            lines.append(f"- tried{self.proof.on}: {self.proof}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        fields: dict[str, Any] = plain(vars(self))
        return fields

    def __str__(self) -> str:
        advice = f" What to do: {self.remedies[0]}." if self.remedies else ""
        return f"{self._title}, since step {self.step}. {self.explanation}{advice}"


def plain(value: Any) -> Any:
    """Findings and what they hold as JSON knows them."""
    if isinstance(value, (Criterion, Remedy, Finding, Experiment, Example)):
        return plain(vars(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(plain, value), key=str)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.value if isinstance(value, Trait) else to_json(value)
