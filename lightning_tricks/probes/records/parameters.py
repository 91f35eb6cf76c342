"""What is known about one parameter after a step: its gradient before and its change."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from lightning_tricks.probes.records.record import StepRecord, measure
from lightning_tricks.stats import ParameterSums


@dataclasses.dataclass(frozen=True)
class ParameterRecord(StepRecord):
    """One parameter, its gradient before and its change after the optimiser step.

    Args:
        name: The parameter's name, ``"net.0.weight"``.
        layer: The name of the first weighted record that used it as its weight, or None.
        shape: Its shape.
        fan_in: Number of weights into one unit; 0 where it is no weight.
        symmetric: Whether all units have exactly the same weights.
        nonfinite: Whether a weight looked at is NaN or Inf.
        nonfinite_gradient: Whether any entry of the gradient is NaN or Inf.
        trainable: Whether it requires a gradient.
        optimized: Whether an optimiser holds it; True where no optimiser is known.
        group: Which of the optimisers' parameter groups it is in, counted over all of them; -1 where it is in none.
        ran: Whether it, or the module that it is of, took part in the forward pass.
        reached: Whether a loss that went backward depends on it.
        altered: Whether its gradient was changed between the look at it and the step: clipped, masked, erased.
        decay: Size of the weight decay in this step, as a root mean square: of what it adds to the gradient or, where
            it is decoupled, of what it takes from the weights beside the gradient's step; 0 without any, NaN where it
            is not known.
        decoupled: Whether the decay is so.
        sums: The sums behind these measures, or None in an old record.

    The measures, each a float, are described below.
    """

    layer: str | None = None
    shape: tuple[int, ...] = ()
    fan_in: int = 0

    @measure(monitor="gradients")
    @staticmethod
    def gradient(sums: ParameterSums) -> float:
        """Root mean square of the gradient, before clipping; NaN without one."""
        return math.nan if sums.gradient is None else sums.gradient.rms

    @measure()
    @staticmethod
    def arrived(sums: ParameterSums) -> float:
        """Root mean square of the gradient with which the optimiser stepped; NaN where it is the same."""
        return math.nan if sums.arrived is None else sums.arrived.squares.rms or math.nan  # erased is not clipped

    @measure()
    @staticmethod
    def arrived_peak(sums: ParameterSums) -> float:
        """The largest entry of that gradient: of one clipped by value, the limit."""
        return math.nan if sums.arrived is None else float(sums.arrived.peak)

    @measure()
    @staticmethod
    def weight(sums: ParameterSums) -> float:
        """Root mean square of the weights before the step."""
        return sums.weight.rms

    @measure()
    @staticmethod
    def update(sums: ParameterSums) -> float:
        """Root mean square of the change dw."""
        return math.nan if sums.update is None else sums.update.rms

    @measure(
        "update",
        7,
        "power",
        "update ratio: size of an update / size of the weights",
        reading="near 1e-3 is fine",
        needed=3,
        monitor="gradients",
    )
    @staticmethod
    def update_ratio(sums: ParameterSums) -> float:
        """update / weight; healthy about 1e-3."""
        weight = sums.weight.rms
        return sums.update.rms / weight if sums.update is not None and weight > 0 else math.nan

    @measure(
        meaning="how much the updates of a unit's weights go one way: abs(sum dw) / sum abs(dw)",
        monitor="gradients",
        reading="about 1 / sqrt(fan_in) where they are independent; near 1 a fault only where the mean drift is large",
    )
    @staticmethod
    def update_coherence(sums: ParameterSums) -> float:
        """Mean over units of abs(sum_j dw_ij) / sum_j abs(dw_ij); 1/sqrt(fan_in) if independent."""
        return math.nan if sums.rows is None else sums.rows.update_coherence

    @measure(
        meaning="how far one update moves the mean of a unit, in standard deviations of a",
        monitor="gradients",
        reading="under 0.2 is usual; over 1 for several steps, units leave their range",
    )
    @staticmethod
    def mean_drift(sums: ParameterSums) -> float:
        """Root mean square over units of (sum_j dw_ij E x_j + db_i) / std(a_i) of this one update."""
        return math.nan if sums.rows is None else sums.rows.mean_drift

    symmetric: bool = False
    nonfinite: bool = False
    nonfinite_gradient: bool = False
    trainable: bool = True
    optimized: bool = True
    group: int = -1
    ran: bool = True
    reached: bool = False
    altered: bool = False
    decay: float = math.nan
    decoupled: bool = False
    sums: ParameterSums | None = dataclasses.field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        name: str,
        layer: str | None,
        shape: tuple[int, ...],
        fan_in: int,
        sums: ParameterSums,
        trainable: bool = True,
        optimized: bool = True,
        **seen: Any,
    ) -> ParameterRecord:
        """The record of these sums."""
        return cls(
            name,
            layer,
            shape,
            fan_in,
            symmetric=sums.row_differences is not None and float(sums.row_differences) == 0.0,
            nonfinite=not math.isfinite(sums.weight.square),
            nonfinite_gradient=sums.gradient is not None and not math.isfinite(sums.gradient.square),
            trainable=trainable,
            optimized=optimized,
            sums=sums,
            **seen,
            **cls.measured(sums=sums),
        )

    def merge(self, other: ParameterRecord) -> ParameterRecord:
        """The record of both ranks' or both steps' sums; the older one if either has lost its sums."""
        if self.sums is None or other.sums is None:
            return self
        return ParameterRecord.of(
            self.name,
            self.layer,
            self.shape,
            self.fan_in,
            self.sums.merge(other.sums),
            self.trainable or other.trainable,
            self.optimized or other.optimized,
            group=max(self.group, other.group),
            ran=self.ran or other.ran,
            reached=self.reached or other.reached,
            altered=self.altered or other.altered,
            decay=_larger(self.decay, other.decay),
            decoupled=self.decoupled or other.decoupled,
        )

    @property
    def decay_share(self) -> float:
        """The decay's part over the gradient's: from 1 on the weights shrink, whatever the gradient asks for.

        Where it is decoupled, the gradient's part of the update is what is left of it if the two are independent.
        """
        part = self.gradient if math.isnan(self.arrived) else self.arrived
        if self.decoupled:
            part = math.sqrt(max(self.update**2 - self.decay**2, 0.0))
        if part == 0.0:
            return math.inf if self.decay > 0 else self.decay
        return self.decay / part


def _larger(one: float, other: float) -> float:
    return one if math.isnan(other) or one >= other else other
