"""Calls of batch normalisations that keep running statistics, and the dropouts that may come right before one."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_tricks.probes.measure.tallies import ActivationTally, Derived, WeightedTally, origin_of
from lightning_tricks.probes.records.loss_and_norm import NormalizationRecord
from lightning_tricks.stats import MomentSums, sample
from lightning_tricks.stats.sums import Sums

if TYPE_CHECKING:
    from lightning_tricks.probes.watch.observer import Observer

_DEFAULTS = {"running_mean": None, "running_var": None, "training": False, "momentum": 0.1, "eps": 1e-5}
_POSITIONS = {"running_mean": 1, "running_var": 2, "training": 5, "momentum": 6, "eps": 7}


@dataclass(frozen=True)
class NormalizationSums(Sums):
    """One call: the moments of its input and the running statistics as they were before it, per channel."""

    batch: MomentSums
    running_mean: Any
    running_variance: Any


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


def batch_norm(observer: Observer, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Count a call before it runs, as it is about to update the running statistics."""
    x = args[0] if args else kwargs.get("input")
    annotation = None
    if observer.listening and isinstance(x, Tensor) and x.dim() > 1:
        observer.axis = 1 - x.dim()
        annotation = observer.annotations.read(x)
        given = {key: args[at] if at < len(args) else kwargs.get(key, _DEFAULTS[key]) for key, at in _POSITIONS.items()}
        if observer.is_buffer(given["running_mean"]) and observer.is_buffer(given["running_var"]) and x.numel():
            name = observer.modules.name("normalization", "batch_norm")
            with observer.guard(name), torch.no_grad():
                if observer.can_count(name, x):
                    _count(name, observer, x, annotation, given)
    output = func(*args, **kwargs)
    if annotation is not None:
        observer.derive(output, annotation)  # linear: per unit it scales and shifts
    return output


def dropout(observer: Observer, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Linear, with a factor per element; its rate is noted on the output."""
    x = args[0] if args else kwargs.get("input")
    annotation, p = None, 0.0
    if observer.listening and isinstance(x, Tensor):
        annotation = observer.annotations.read(x)
        training = args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", True))
        rate = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
        p = float(rate) if training and isinstance(rate, (int, float)) else 0.0
    output = func(*args, **kwargs)
    if p > 0 or annotation is not None:
        observer.derive(output, annotation, p)
    return output


def _count(name: str, observer: Observer, x: Tensor, annotation: Any, given: dict[str, Any]) -> None:
    tallies, channels = observer.tallies, x.shape[1]
    tally = tallies.normalizations.get(name)
    if tally is None:
        origin, momentum = origin_of(annotation), given["momentum"]
        tally = tallies.normalizations[name] = NormalizationTally(
            name,
            tallies.tick(),
            channels,
            len(x),
            x.numel() // channels,
            bool(given["training"]),
            float(momentum) if isinstance(momentum, (int, float)) else math.nan,
            float(given["eps"]),
            origin if isinstance(origin, WeightedTally) else None,
            annotation.dropout if isinstance(annotation, Derived) else 0.0,
        )
    moments = None
    if isinstance(annotation, (WeightedTally, ActivationTally)) and annotation.axis == observer.axis:
        moments = annotation.outputs
    if moments is None:
        taken = sample(x, 1 - x.dim(), observer.max_patterns)
        moments = MomentSums.of(taken.values, taken.dim)
    tally.calls.append(NormalizationSums(moments, given["running_mean"].clone(), given["running_var"].clone()))
