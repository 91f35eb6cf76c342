"""What is known about one call of an activation function after a step."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from lightning_tricks.probes.records import record
from lightning_tricks.probes.records.record import StepRecord, measure
from lightning_tricks.stats import ActivationSums, SquareSums

LINEAR = 0.99  # a unit whose linearity is above this is counted in linear_share
UNKNOWN = "unknown"  # the function of a nonlinearity that is no entry of the registry
DEAD = 0.01  # a unit active on fewer patterns than this is counted in dead_share (SageMaker's rule)


@dataclasses.dataclass(frozen=True)
class ActivationRecord(StepRecord):
    """One call of an activation function x = g(a).

    Args:
        name: ``"net.2"``, or ``"net.relu_2"`` for the second relu called by ``net`` itself.
        function: The registry name of g; ``"unknown"`` of a nonlinearity that is told from its input and output alone.
        order: Position among all recorded calls of the step.
        gate: Whether the output multiplies something else or only leads to what does, or the input is a parameter.
        units: Number of units (channels).
        patterns: Number of patterns looked at, per unit.
        nonfinite: Whether any output is NaN or Inf.
        histogram: Shares of pre-activations in the 34 intervals cut by -4, -3.75, ..., 4.
        centred: The same less the mean of their unit, so that units held apart by biases do not look as if they varied.
        awake: Which units were active on any pattern, a bit for each, as a hexadecimal number; empty where the function
            has no hard zero, and in an old record.
        sums: The sums per unit behind these measures, or None in an old record.
        signal: The sums of the error signal.

    The measures, each a float, are described below.
    """

    function: str = ""
    order: int = 0
    gate: bool = False
    units: int = 0
    patterns: int = 0

    @measure(
        "mean a",
        7,
        "number",
        "mean of the pre-activation a, which enters the activation",
        reading="of the size of std a or smaller",
        needed=1,
        monitor="activations",
    )
    @staticmethod
    def mean(sums: ActivationSums) -> float:
        """Mean over units of E a."""
        return record.mean(sums.joint.preactivation.mean)

    @measure(
        "std a",
        7,
        "number",
        "standard deviation of a over the patterns",
        reading="neither fades nor grows from layer to layer; at the start between 0.03 and 30",
        needed=8,
        monitor="activations",
    )
    @staticmethod
    def std(sums: ActivationSums) -> float:
        """Root of the mean over units of var(a)."""
        return record.root(record.mean(sums.joint.preactivation.variance))

    @measure(
        "linear",
        6,
        ".3f",
        "linearity: how well a straight line explains the output",
        reading="0.7 to 0.98 is usual, 1 is a linear filter",
        needed=6,
        counted=True,
        monitor="activations",
    )
    @staticmethod
    def linearity(sums: ActivationSums) -> float:
        """Mean over units of corr(a, g(a))^2; 1: the layer is a linear filter on every pattern it sees."""
        return record.mean(sums.linearity, skip_nan=True)

    @measure(monitor="activations")
    @staticmethod
    def linear_share(sums: ActivationSums) -> float:
        """Share of units with a linearity over 0.99."""
        linearity = sums.linearity
        return _share(linearity > LINEAR, ~np.isnan(linearity))

    @measure(
        "satur.",
        6,
        ".0%",
        "saturation: share of patterns on a flat side",
        reading="under 50 % is fine",
        needed=4,
        counted=True,
        monitor="activations",
    )
    @staticmethod
    def saturation(sums: ActivationSums) -> float:
        """Share of patterns on a flat side of g (slope under 5 % of the largest), mean over units."""
        return record.mean(sums.saturation)

    @measure(
        "active",
        6,
        ".0%",
        "share of patterns on which a unit is not zero",
        needed=2,
        counted=True,
        monitor="activations",
    )
    @staticmethod
    def activity(sums: ActivationSums) -> float:
        """Share of patterns with g'(a) != 0, mean over units; for functions with a hard zero."""
        return record.mean(sums.activity)

    @measure(
        "dead",
        5,
        ".0%",
        "share of units that are active on under 1 % of the patterns",
        reading="under 50 % is fine",
        needed=5,
        counted=True,
        monitor="activations",
    )
    @staticmethod
    def dead_share(sums: ActivationSums) -> float:
        """Share of units that are active on under 1 % of the patterns of this step."""
        activity = sums.activity
        return math.nan if activity is None or not sums.joint.count else _share(activity < DEAD)

    @measure()
    @staticmethod
    def error_signal(signal: SquareSums) -> float:
        """Root mean square of delta = dLoss/da."""
        return signal.rms

    @measure(
        "passes",
        6,
        "factor",
        "transmission: share of the squared error signal that gets through",
        reading="0.5 for ReLU, at most 0.0625 for logistic units: over many such layers nothing is left",
        needed=0,
        counted=True,
        monitor="gradients",
    )
    @staticmethod
    def transmission(sums: ActivationSums) -> float:
        """E g'(a)^2: the factor by which the layer scales the mean square of the error signal."""
        return sums.transmission

    @measure(
        meaning="share of an output's energy that is in its mean over the patterns",
        monitor="activations",
        reading="0 is centred, 0.32 usual behind ReLU, 1: all patterns look alike",
    )
    @staticmethod
    def mean_energy(sums: ActivationSums) -> float:
        """norm(E x)^2 / E norm(x)^2 of the output x."""
        return sums.joint.activation.mean_energy

    @measure()
    @staticmethod
    def input_variation(sums: ActivationSums) -> float:
        """Largest std over patterns of a unit's pre-activation, over the largest root mean square."""
        return sums.joint.preactivation.variation

    @measure()
    @staticmethod
    def variation(sums: ActivationSums) -> float:
        """The same of the output x: 0 where all patterns give the same."""
        return sums.joint.activation.variation

    @measure()
    @staticmethod
    def resolution(sums: ActivationSums) -> float:
        """Relative rounding error of the output's number format."""
        return sums.resolution

    nonfinite: bool = False
    histogram: tuple[float, ...] = ()
    centred: tuple[float, ...] = ()
    awake: str = ""
    sums: ActivationSums | None = dataclasses.field(default=None, repr=False, compare=False)
    signal: SquareSums | None = dataclasses.field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls, name: str, function: str, order: int, gate: bool, sums: ActivationSums, signal: SquareSums | None
    ) -> ActivationRecord:
        """The record of these sums."""
        a = sums.joint.preactivation
        return cls(
            name,
            function,
            order,
            gate,
            units=len(a.mean),
            patterns=a.count,
            nonfinite=a.count > 0 and not math.isfinite(sums.total),
            histogram=_histogram(sums.below),
            centred=_histogram(sums.below_centred),
            awake="" if sums.activity is None else np.packbits(sums.activity > 0.0).tobytes().hex(),
            sums=sums,
            signal=signal,
            **cls.measured(sums=sums, signal=signal),
        )

    def merge(self, other: ActivationRecord) -> ActivationRecord:
        """The record of the patterns of both; the older one if either has lost its sums."""
        if self.sums is None or other.sums is None:
            return self
        signal = record.merged(self.signal, other.signal)
        gate = self.gate or other.gate
        return ActivationRecord.of(self.name, self.function, self.order, gate, self.sums.merge(other.sums), signal)


def _share(chosen: Any, among: Any = None) -> float:
    count = chosen.size if among is None else int(among.sum())
    return float(chosen.sum()) / count if count else math.nan


def _histogram(below: Any) -> tuple[float, ...]:
    cumulative = np.asarray(below, np.float64)
    if not cumulative[-1] > 0:
        return ()
    counts = cumulative.copy()
    counts[1:] -= cumulative[:-1]
    return tuple((counts / cumulative[-1]).tolist())
