"""The calls of loss functions of a step: their numbers on the device, and the records made of them on the host."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_tricks.probes.records.loss_and_norm import LossRecord
from lightning_tricks.stats.sums import Sums


def ends(values: Tensor) -> Tensor:
    """The smallest and the largest of some numbers; NaN where one of them is."""
    return torch.stack(torch.aminmax(values))


@dataclass(frozen=True)
class Spread(Sums):
    """Mean, variance, smallest and largest of some numbers: tensors, or arrays on the host."""

    mean: Any
    variance: Any
    ends: Any

    @classmethod
    def of(cls, values: Tensor) -> Spread:
        variance, mean = torch.var_mean(values, correction=0)
        return cls(mean, variance, ends(values))

    def measures(self, name: str) -> dict[str, float]:
        """The four measures of a record by their names."""
        low, high = self.ends.tolist()
        std = math.sqrt(max(float(self.variance), 0.0)) if math.isfinite(self.variance) else math.nan
        return {f"{name}_mean": float(self.mean), f"{name}_std": std, f"{name}_min": low, f"{name}_max": high}


@dataclass(frozen=True)
class LossSums(Sums):
    """One call, its numbers still on the device.

    Args:
        patterns: Number of patterns looked at.
        count: Number of inputs looked at.
        value: The mean loss.
        chance: The loss of a uniform guess.
        input: Of all inputs looked at.
        nonzero: Number of inputs that are not zero.
        sums, log_sums: Smallest and largest sum, and log sum exp, over the outputs of a pattern.
        target: Of all targets looked at; None for numbers of classes.
        classes: The numbers of the classes themselves: a few thousand of them, which the host sees through faster.
        ignored: The number that is none of a class.
    """

    patterns: int
    count: int
    value: Any
    chance: Any
    input: Spread
    nonzero: Any
    sums: Any = None
    log_sums: Any = None
    target: Spread | None = None
    classes: Any = None
    ignored: int | None = None

    def target_measures(self) -> dict[str, float]:
        if self.target is not None:
            return self.target.measures("target")
        known = self.classes if self.ignored is None else self.classes[self.classes != self.ignored]
        count = len(known)
        if not count:
            return {}
        mean = float(known.sum(dtype=np.float64)) / count
        centred = known - mean
        return Spread(mean, float(centred @ centred) / count, np.array((known.min(), known.max()))).measures("target")


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
    calls: list[LossSums] = field(default_factory=list)

    def record(self, calls: list[LossSums]) -> LossRecord:
        """The record of these calls, which are on the host."""
        return functools.reduce(lambda one, other: one.merge(other), map(self._record, calls))

    def _record(self, sums: LossSums) -> LossRecord:
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
            weighted=self.weighted,
            activation=self.activation,
            **sums.input.measures("input"),
            **sums.target_measures(),
        )


def _distance(ends: Any, wanted: float) -> float:
    return math.nan if ends is None else max(abs(end - wanted) for end in ends.tolist())
