"""What is known about one layer after a step: frozen, small, on the host, plain JSON when asked."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from lightning_tricks.probes.records.record import Record
from lightning_tricks.stats import ActivationSums, MomentSums, ParameterSums, SquareSums, WeightedSums

__all__ = ["ActivationRecord", "ParameterRecord", "Record", "WeightedRecord"]

LINEAR = 0.99  # a unit whose linearity is above this is counted in linear_share
DEAD = 0.01  # a unit active on fewer patterns than this is counted in dead_share (SageMaker's rule)


@dataclasses.dataclass(frozen=True)
class ActivationRecord(Record):
    """One call of an activation function x = g(a).

    Args:
        name: ``"net.2"``, or ``"net.relu_2"`` for the second relu called by ``net`` itself.
        function: The registry name of g.
        order: Position among all recorded calls of the step.
        gate: Whether the output multiplies something else or only leads to what does, or the input is a parameter.
        units: Number of units (channels).
        patterns: Number of patterns looked at, per unit.
        mean: Mean over units of E a.
        std: Root of the mean over units of var(a).
        linearity: Mean over units of corr(a, g(a))^2; 1: the layer is a linear filter on every pattern it sees.
        linear_share: Share of units with a linearity over 0.99.
        saturation: Share of patterns on a flat side of g (slope under 5 % of the largest), mean over units.
        activity: Share of patterns with g'(a) != 0, mean over units; for functions with a hard zero.
        dead_share: Share of units that are active on under 1 % of the patterns of this step.
        transmission: E g'(a)^2: the factor by which the layer scales the mean square of the error signal.
        mean_energy: norm(E x)^2 / E norm(x)^2 of the output x.
        error_signal: Root mean square of delta = dLoss/da.
        nonfinite: Whether any output is NaN or Inf.
        histogram: Shares of pre-activations in the 34 intervals cut by -4, -3.75, ..., 4.
        sums: The sums per unit behind these measures, or None in an old record.
        signal: The sums of the error signal.
    """

    function: str = ""
    order: int = 0
    gate: bool = False
    units: int = 0
    patterns: int = 0
    mean: float = math.nan
    std: float = math.nan
    linearity: float = math.nan
    linear_share: float = math.nan
    saturation: float = math.nan
    activity: float = math.nan
    dead_share: float = math.nan
    transmission: float = math.nan
    mean_energy: float = math.nan
    error_signal: float = math.nan
    nonfinite: bool = False
    histogram: tuple[float, ...] = ()
    sums: ActivationSums | None = dataclasses.field(default=None, repr=False, compare=False)
    signal: SquareSums | None = dataclasses.field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls, name: str, function: str, order: int, gate: bool, sums: ActivationSums, signal: SquareSums | None
    ) -> ActivationRecord:
        """The record of these sums."""
        a, linearity, activity = sums.joint.preactivation, sums.linearity, sums.activity
        return cls(
            name,
            function,
            order,
            gate,
            units=len(a.mean),
            patterns=a.count,
            mean=_mean(a.mean),
            std=_root(_mean(a.variance)),
            linearity=_mean(linearity, skip_nan=True),
            linear_share=_share(linearity > LINEAR, ~np.isnan(linearity)),
            saturation=_mean(sums.saturation),
            activity=_mean(activity),
            dead_share=math.nan if activity is None or not a.count else _share(activity < DEAD),
            transmission=sums.transmission,
            mean_energy=sums.joint.activation.mean_energy,
            error_signal=math.nan if signal is None else signal.rms,
            nonfinite=a.count > 0 and not math.isfinite(sums.total),
            histogram=_histogram(sums.below),
            sums=sums,
            signal=signal,
        )

    def merge(self, other: ActivationRecord) -> ActivationRecord:
        """The record of the patterns of both; the older one if either has lost its sums."""
        if self.sums is None or other.sums is None:
            return self
        signal = _merged(self.signal, other.signal)
        gate = self.gate or other.gate
        return ActivationRecord.of(self.name, self.function, self.order, gate, self.sums.merge(other.sums), signal)


@dataclasses.dataclass(frozen=True)
class WeightedRecord(Record):
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
        input_mean: Mean over features of E x.
        input_std: Root of the mean over features of var(x).
        mean_energy: norm(E x)^2 / E norm(x)^2 of the input.
        mean: Mean over units of E y.
        std: Root of the mean over units of var(y).
        error_signal: Root mean square of dLoss/dy.
        nonfinite: Whether any output is NaN or Inf.
        nonfinite_input: Whether an input looked at is NaN or Inf.
        with_gradient: Whether gradients were switched on while it ran.
        sums, signal: The sums behind these measures, or None in an old record.
    """

    operation: str = ""
    order: int = 0
    weight: str | None = None
    follows: str | None = None
    units: int = 0
    fan_in: int = 0
    patterns: int = 0
    elements: int = 0
    input_mean: float = math.nan
    input_std: float = math.nan
    mean_energy: float = math.nan
    mean: float = math.nan
    std: float = math.nan
    error_signal: float = math.nan
    nonfinite: bool = False
    nonfinite_input: bool = False
    with_gradient: bool = True
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
            input_mean=math.nan if x is None else _mean(x.mean),
            input_std=math.nan if x is None else _root(_mean(x.variance)),
            mean_energy=math.nan if x is None else x.mean_energy,
            mean=_mean(y.mean),
            std=_root(_mean(y.variance)),
            error_signal=math.nan if signal is None else signal.rms,
            nonfinite=looked and not math.isfinite(sums.total),
            nonfinite_input=looked and not _finite(x, sums.input_total),
            with_gradient=with_gradient,
            sums=sums,
            signal=signal,
        )

    def merge(self, other: WeightedRecord) -> WeightedRecord:
        """The record of the patterns of both; the older one if either has lost its sums."""
        if self.sums is None or other.sums is None:
            return self
        signal, sums = _merged(self.signal, other.signal), self.sums.merge(other.sums)
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
        )


@dataclasses.dataclass(frozen=True)
class ParameterRecord(Record):
    """One parameter, its gradient before and its change after the optimiser step.

    Args:
        name: The parameter's name, ``"net.0.weight"``.
        layer: The name of the first weighted record that used it as its weight, or None.
        shape: Its shape.
        fan_in: Number of weights into one unit; 0 where it is no weight.
        gradient: Root mean square of the gradient, before clipping; NaN without one.
        weight: Root mean square of the weights before the step.
        update: Root mean square of the change dw.
        update_ratio: update / weight; healthy about 1e-3.
        update_coherence: Mean over units of abs(sum_j dw_ij) / sum_j abs(dw_ij); 1/sqrt(fan_in) if independent.
        mean_drift: Root mean square over units of (sum_j dw_ij E x_j + db_i) / std(a_i) of this one update.
        symmetric: Whether all units have exactly the same weights.
        nonfinite: Whether a weight looked at is NaN or Inf.
        nonfinite_gradient: Whether any entry of the gradient is NaN or Inf.
        trainable: Whether it requires a gradient.
        optimized: Whether an optimiser holds it; True where no optimiser is known.
        sums: The sums behind these measures, or None in an old record.
    """

    layer: str | None = None
    shape: tuple[int, ...] = ()
    fan_in: int = 0
    gradient: float = math.nan
    weight: float = math.nan
    update: float = math.nan
    update_ratio: float = math.nan
    update_coherence: float = math.nan
    mean_drift: float = math.nan
    symmetric: bool = False
    nonfinite: bool = False
    nonfinite_gradient: bool = False
    trainable: bool = True
    optimized: bool = True
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
    ) -> ParameterRecord:
        """The record of these sums."""
        weight = sums.weight.rms
        update = math.nan if sums.update is None else sums.update.rms
        gradient = math.nan if sums.gradient is None else sums.gradient.rms
        return cls(
            name,
            layer,
            shape,
            fan_in,
            gradient=gradient,
            weight=weight,
            update=update,
            update_ratio=update / weight if weight > 0 else math.nan,
            update_coherence=math.nan if sums.rows is None else sums.rows.update_coherence,
            mean_drift=math.nan if sums.rows is None else sums.rows.mean_drift,
            symmetric=sums.spread is not None and float(sums.spread) == 0.0,
            nonfinite=not math.isfinite(sums.weight.square),
            nonfinite_gradient=sums.gradient is not None and not math.isfinite(sums.gradient.square),
            trainable=trainable,
            optimized=optimized,
            sums=sums,
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
        )


def _finite(x: MomentSums | None, total: Any) -> bool:
    seen = x is None or x.count == 0 or bool(np.isfinite(x.mean).all())
    return seen and (total is None or math.isfinite(total))


def _merged(one: SquareSums | None, other: SquareSums | None) -> SquareSums | None:
    return other if one is None else one if other is None else one.merge(other)


def _mean(values: Any, *, skip_nan: bool = False) -> float:
    if values is None:
        return math.nan
    values = np.asarray(values, np.float64)
    if skip_nan:
        values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else math.nan


def _share(chosen: Any, among: Any = None) -> float:
    count = chosen.size if among is None else int(among.sum())
    return float(chosen.sum()) / count if count else math.nan


def _root(value: float) -> float:
    return math.sqrt(value) if value >= 0 else math.nan


def _histogram(below: Any) -> tuple[float, ...]:
    cumulative = np.asarray(below, np.float64)
    if not cumulative[-1] > 0:
        return ()
    return tuple((np.diff(cumulative, prepend=0.0) / cumulative[-1]).tolist())
