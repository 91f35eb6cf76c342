"""What is known about one call of a weighted operation after a step."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from lightning_tricks.probes.records import record
from lightning_tricks.probes.records.record import StepRecord, measure
from lightning_tricks.stats import MomentSums, SquareSums, WeightedSums


@dataclasses.dataclass(frozen=True)
class WeightedRecord(StepRecord):
    """One call of a weighted operation y = W x + b.

    Args:
        name: ``"net.0"``, or ``"attention.linear_2"`` for the second linear operation of ``attention`` itself.
        operation: ``"linear"``, ``"conv2d"``, ``"matmul"``, ``"lstm"`` ...
        order: Position among all recorded calls of the step.
        weight: The name of the weight parameter; None where the weight was computed.
        follows: The weighted record whose output came in with nothing but linear operations between; None else.
        units: Number of units (output channels).
        fan_in: Number of weights into one unit.
        patterns: Number of patterns looked at, per unit.
        elements: Number of elements of the whole output.
        nonfinite: Whether any output is NaN or Inf.
        nonfinite_input: Whether an input looked at is NaN or Inf.
        with_gradient: Whether gradients were switched on while it ran.
        dropout: p of the dropout whose output it takes with nothing but reshaping between; 0 else.
        dropped_by: The name of that dropout.
        sums, signal: The sums behind these measures, or None in an old record.

    The measures, each a float, are described below.
    """

    operation: str = ""
    order: int = 0
    weight: str | None = None
    follows: str | None = None
    units: int = 0
    fan_in: int = 0
    patterns: int = 0
    elements: int = 0

    @measure()
    @staticmethod
    def input_mean(sums: WeightedSums) -> float:
        """Mean over features of E x."""
        return math.nan if sums.input is None else record.mean(sums.input.mean)

    @measure()
    @staticmethod
    def input_std(sums: WeightedSums) -> float:
        """Root of the mean over features of var(x)."""
        return math.nan if sums.input is None else record.root(record.mean(sums.input.variance))

    @measure()
    @staticmethod
    def mean_energy(sums: WeightedSums) -> float:
        """norm(E x)^2 / E norm(x)^2 of the input."""
        return math.nan if sums.input is None else sums.input.mean_energy

    @measure()
    @staticmethod
    def mean(sums: WeightedSums) -> float:
        """Mean over units of E y."""
        return record.mean(sums.output.mean)

    @measure()
    @staticmethod
    def std(sums: WeightedSums) -> float:
        """Root of the mean over units of var(y)."""
        return record.root(record.mean(sums.output.variance))

    @measure()
    @staticmethod
    def input_variation(sums: WeightedSums) -> float:
        """Largest std over patterns of an input feature, over the largest root mean square: 0 for equal patterns."""
        return math.nan if sums.input is None else sums.input.variation

    @measure()
    @staticmethod
    def variation(sums: WeightedSums) -> float:
        """Largest std over patterns of a unit's output, over the largest root mean square: 0 for equal patterns."""
        return sums.output.variation

    @measure()
    @staticmethod
    def resolution(sums: WeightedSums) -> float:
        """Relative rounding error of the output's number format."""
        return sums.resolution

    @measure()
    @staticmethod
    def dropout_noise(sums: WeightedSums) -> float:
        """Share of the output's variance that only the draws of the dropout before it make; NaN without one."""
        whole = float(np.sum(sums.output.m2))
        return float(sums.noise) / whole if sums.noise is not None and whole > 0 else math.nan

    @measure(monitor="gradients")
    @staticmethod
    def error_signal(signal: SquareSums) -> float:
        """Root mean square of dLoss/dy."""
        return signal.rms

    nonfinite: bool = False
    nonfinite_input: bool = False
    with_gradient: bool = True
    dropout: float = 0.0
    dropped_by: str | None = None
    sums: WeightedSums | None = dataclasses.field(default=None, repr=False, compare=False)
    signal: SquareSums | None = dataclasses.field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        name: str,
        operation: str,
        order: int,
        weight: str | None,
        follows: str | None,
        fan_in: int,
        elements: int,
        sums: WeightedSums,
        signal: SquareSums | None,
        with_gradient: bool = True,
        dropout: float = 0.0,
        dropped_by: str | None = None,
    ) -> WeightedRecord:
        """The record of these sums."""
        x, y = sums.input, sums.output
        looked = y.count > 0
        return cls(
            name,
            operation,
            order,
            weight,
            follows,
            units=len(y.mean),
            fan_in=fan_in,
            patterns=y.count,
            elements=elements,
            nonfinite=looked and not math.isfinite(sums.total),
            nonfinite_input=looked and not _finite(x, sums.input_total),
            with_gradient=with_gradient,
            dropout=dropout,
            dropped_by=dropped_by,
            sums=sums,
            signal=signal,
            **cls.measured(sums=sums, signal=signal),
        )

    def merge(self, other: WeightedRecord) -> WeightedRecord:
        """The record of the patterns of both; the older one if either has lost its sums."""
        if self.sums is None or other.sums is None:
            return self
        signal, sums = record.merged(self.signal, other.signal), self.sums.merge(other.sums)
        elements = self.elements + other.elements
        return WeightedRecord.of(
            self.name,
            self.operation,
            self.order,
            self.weight,
            self.follows,
            self.fan_in,
            elements,
            sums,
            signal,
            self.with_gradient or other.with_gradient,
            self.dropout,
            self.dropped_by,
        )


def _finite(x: MomentSums | None, total: Any) -> bool:
    seen = x is None or x.count == 0 or bool(np.isfinite(x.mean).all())
    return seen and (total is None or math.isfinite(total))
