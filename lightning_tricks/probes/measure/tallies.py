"""What is being counted while a step runs: one tally per call of it, its sums still on the device."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from lightning_tricks.probes.measure.loss_and_norm_sums import LossSums, NormalizationSums
from lightning_tricks.probes.measure.operations import WeightedCall
from lightning_tricks.probes.measure.regularization import Dropped
from lightning_tricks.probes.records.loss_and_norm import LossRecord, NormalizationRecord
from lightning_tricks.probes.records.loss_path import BroadcastRecord, SoftmaxRecord
from lightning_tricks.stats import ActivationSums, MomentSums, Sample, SquareSums, WeightedSums


@dataclass
class ErrorSignal:
    """The error signal of one tensor; shared by a weighted operation and the activation that follows it.

    Args:
        incomplete: Whether its parts arrived in passes that cannot be added any more: then there is no number to tell.
    """

    sums: SquareSums | None = None
    incomplete: bool = False

    def add(self, sums: SquareSums) -> None:
        self.sums = sums if self.sums is None else self.sums.merge(sums)


@dataclass
class ActivationTally:
    """One call of an activation function in every micro-batch of a step.

    Args:
        gate: Whether the output is a factor, or only leads to one.
        weights: The weighted operation whose output it takes as it is; None for any other input.
        behind: The weighted operation whose output it takes, nothing but linear operations between; None else.
        readers: The weighted operations that take its output.
        outputs: MomentSums of the outputs of the last micro-batch alone: the next layer's input.
    """

    name: str
    function: str
    order: int
    axis: int
    signal: ErrorSignal
    gate: bool = False
    weights: WeightedTally | None = None
    behind: WeightedTally | None = None
    readers: set[str] = field(default_factory=set)
    sums: ActivationSums | None = None
    outputs: MomentSums | None = None

    def add(self, sums: ActivationSums) -> None:
        self.outputs = sums.joint.activation
        self.sums = sums if self.sums is None else self.sums.merge(sums)

    def become_gate(self, partner: ActivationTally | None) -> None:
        """Its output multiplies ``partner``: no hidden layer, nor is one that leads nowhere else (squeeze-excite)."""
        self.gate = True
        before = self.weights.reads if self.weights is not None else None
        if before is not None and before is not partner and len(before.readers) == 1:
            before.gate = True


@dataclass
class WeightedTally:
    """One call of a weighted operation in every micro-batch of a step.

    Args:
        call: The call without its input: the weight, its layout and its bias are read again after the update.
        follows: The weighted operation whose output it takes, nothing but linear operations between; None else.
        reads: The activation whose output it takes, nothing but linear operations between; None else.
        with_gradient: Whether gradients were switched on at any call.
        outputs: MomentSums of the outputs of the last micro-batch alone.
        shape: Of the output in the last micro-batch.
        dropped: The dropout whose output it takes, nothing but reshaping between; None else.
    """

    name: str
    operation: str
    order: int
    axis: int
    signal: ErrorSignal
    call: WeightedCall
    weight: str | None
    follows: str | None
    reads: ActivationTally | None = None
    elements: int = 0
    with_gradient: bool = False
    sums: WeightedSums | None = None
    outputs: MomentSums | None = None
    shape: tuple[int, ...] = ()
    dropped: Dropped | None = None

    def add(self, sums: WeightedSums) -> None:
        self.outputs = sums.output
        self.sums = sums if self.sums is None else self.sums.merge(sums)


@dataclass(frozen=True)
class Derived:
    """The annotation of a tensor that a linear operation (view, shift, dropout) made.

    Args:
        origin: Of which counted output; None where it was none.
        dropped: The dropout that was this operation, or that only reshaping follows; None else.
        start: Where along the first two dimensions of that output it begins; None where that is unknown.
    """

    origin: WeightedTally | ActivationTally | None
    dropped: Dropped | None = None
    start: tuple[int, int] | None = (0, 0)

    @property
    def dropout(self) -> float:
        """p of that dropout; 0 without one, and of one that keeps the variance."""
        return 0.0 if self.dropped is None or self.dropped.value else self.dropped.p


@dataclass(frozen=True)
class Unmeasured:
    """The annotation of what elementwise functions, of which none is a known activation, made of a pre-activation.

    Args:
        name: Of the latest of those calls; empty where up to now it was only scaled.
        weights: The weighted operation that gave the pre-activation.
        entered: The pre-activation; None where what became of it cannot be told from it alone.
        shape: Its shape.
        direct: Whether it is the output of ``weights`` itself, nothing between.
    """

    name: str
    weights: WeightedTally
    entered: Sample | None = None
    shape: tuple[int, ...] = ()
    direct: bool = False


def origin_of(annotation: Any) -> Any:
    """The tally of the output that a tensor is, or that linear operations made it of; None where it is unknown."""
    return annotation.origin if isinstance(annotation, Derived) else annotation


@dataclass
class LossTally:
    """One call of a loss function in every micro-batch of a step."""

    name: str
    function: str
    order: int
    input_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    outputs: int
    weighted: str | None
    activation: str | None
    reduction: str
    terms: int
    resolution: float
    arguments: str = ""
    bound: float = math.nan
    laid_out: Mapping[str, Any] = field(default_factory=dict)  # fields of the record: how the classes lie in a layer
    calls: list[LossSums] = field(default_factory=list)

    def record(self, calls: list[LossSums]) -> LossRecord:
        """The record of these calls, which are on the host."""
        return functools.reduce(lambda one, other: one.merge(other), map(self._record, calls))

    def _record(self, sums: LossSums) -> LossRecord:
        known: dict[str, Any] = {**sums.input.measures("input"), **sums.target_measures(self.outputs)}
        known |= {"weighted": self.weighted, **self.laid_out}
        known |= {} if sums.answers is None else sums.answers.measures(self.outputs)  # type: ignore[attr-defined]
        return LossRecord(
            self.name,
            self.function,
            self.order,
            self.input_shape,
            self.target_shape,
            sums.patterns,
            self.outputs,
            value=float(sums.value),
            chance=float(sums.chance),
            zero_share=1.0 - float(sums.nonzero) / sums.count,
            sum_error=_distance(sums.sums, 1.0),
            log_sum_error=_distance(sums.log_sums, 0.0),
            activation=self.activation,
            reduction=self.reduction,
            arguments=self.arguments,
            terms=self.terms,
            bound=self.bound,
            input_variation=sums.variation,
            input_resolution=self.resolution,
            shift=sums.shift,
            class_weights=() if sums.weights is None else tuple(map(float, sums.weights)),
            smoothing=sums.smoothing,
            **known,
        )


@dataclass
class NormalizationTally:
    """One call of a batch normalisation in every micro-batch of a step."""

    name: str
    order: int
    channels: int
    samples: int
    patterns: int
    training: bool
    momentum: float
    eps: float
    follows: WeightedTally | None
    dropout: float
    calls: list[NormalizationSums] = field(default_factory=list)

    def record(self, calls: list[NormalizationSums]) -> NormalizationRecord:
        """The record of these calls, which are on the host."""
        return functools.reduce(lambda one, other: one.merge(other), map(self._record, calls))

    def _record(self, sums: NormalizationSums) -> NormalizationRecord:
        batch, running = sums.batch, np.asarray(sums.running_variance, np.float64) + self.eps
        # The running variance is made of unbiased ones, so this one has to be, too.
        variance = np.asarray(batch.m2, np.float64) / max(batch.count - 1, 1) + self.eps
        gap = (np.asarray(batch.mean, np.float64) - sums.running_mean) / np.sqrt(running)
        ratio = np.log(variance / running)
        return NormalizationRecord(
            self.name,
            self.order,
            self.channels,
            self.samples,
            self.patterns,
            self.training,
            self.momentum,
            None if self.follows is None else self.follows.name,
            self.follows is not None and self.follows.call.bias is not None,
            self.dropout,
            mean_gap=float(np.sqrt(np.mean(gap * gap))),
            log_variance_gap=float(np.sqrt(np.mean(ratio * ratio))),
            variance_ratio=float(np.exp(np.mean(ratio))),
        )


@dataclass
class Tallies:
    """Everything counted in one step, in the order of execution."""

    activations: dict[str, ActivationTally] = field(default_factory=dict)
    weighted: dict[str, WeightedTally] = field(default_factory=dict)
    losses: dict[str, LossTally] = field(default_factory=dict)
    normalizations: dict[str, NormalizationTally] = field(default_factory=dict)
    softmaxes: dict[str, SoftmaxRecord] = field(default_factory=dict)
    broadcasts: dict[str, BroadcastRecord] = field(default_factory=dict)
    not_seen: dict[str, str] = field(default_factory=dict)
    loss: Tensor | None = None
    order: int = 0

    def mark_shared_gates(self) -> None:
        """Weights that feed a gate at one time step feed one at all of them, also where a state begins as zeros."""
        fed = {t.weights.weight for t in self.activations.values() if t.gate and t.weights is not None} - {None}
        for tally in self.activations.values():
            tally.gate = tally.gate or (tally.weights is not None and tally.weights.weight in fed)

    def in_front_of(self, trained: Collection[str]) -> set[str]:
        """The weights whose output, through activations and linear operations, enters one of these."""
        found: set[str] = set()
        waiting = [tally for tally in self.weighted.values() if tally.weight in trained]
        while waiting:
            tally = waiting.pop()
            direct = self.weighted.get(tally.follows or "")
            for before in (direct, None if tally.reads is None else tally.reads.behind):
                if before is not None and before.weight is not None and before.weight not in found:
                    found.add(before.weight)
                    waiting.append(before)
        return found

    def next_order(self) -> int:
        self.order += 1
        return self.order


def _distance(extremes: Any, wanted: float) -> float:
    return math.nan if extremes is None else max(abs(value - wanted) for value in extremes.tolist())
