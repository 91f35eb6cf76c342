"""How a call of a weighted operation becomes numbers: moments of its input and of its output."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_tricks.probes.measure.gradient_hooks import GradientHooks
from lightning_tricks.probes.measure.operations import Operation, WeightedCall
from lightning_tricks.probes.measure.regularization import dropout_noise
from lightning_tricks.probes.measure.tallies import (
    ActivationTally,
    Derived,
    ErrorSignal,
    Tallies,
    WeightedTally,
    origin_of,
)
from lightning_tricks.stats import MomentSums, Sample, WeightedSums, sample, unreadable


@dataclass
class WeightedCounter:
    """Counts calls of weighted operations.

    Args:
        tallies: Where they are counted.
        hooks: Where the error signals come from.
        max_patterns: The most patterns per unit that are looked at.
    """

    tallies: Tallies
    hooks: GradientHooks
    max_patterns: int | None

    def count(
        self, name: str, operation: Operation, call: WeightedCall, y: Tensor, source: Any, weight: str | None
    ) -> WeightedTally:
        """Count one call.

        Args:
            name: The name of the call.
            operation: What was called.
            call: Its input, weight and bias.
            y: Its output.
            source: What is known of the input: the tally whose output it is or was made of, or anything else.
            weight: The name of the parameter that is its weight.
        """
        x, unsampled = call.input, None
        moments: MomentSums | Sample | None = None
        if isinstance(source, ActivationTally) and source.axis == call.input_axis and source.outputs is not None:
            moments = source.outputs
        elif x is not None and call.input_axis and unreadable(x) is None:
            moments = sample(x, call.input_axis, self.max_patterns)
            unsampled = x if moments.values.numel() < x.numel() and not x.requires_grad else None
        tally = self.tallies.weighted.get(name)
        origin = origin_of(source)
        if tally is None:
            follows = origin.name if isinstance(origin, WeightedTally) else None
            tally = self._tally(name, operation, call, weight, follows)
        dropped = source.dropped if isinstance(source, Derived) else None
        sums = WeightedSums.of(moments, sample(y, call.output_axis, self.max_patterns), y, unsampled)
        if dropped is not None:
            tally.dropped = dropped
            sums = dataclasses.replace(sums, noise=dropout_noise(call, dropped, sums))
        tally.add(sums)
        tally.elements += y.numel()
        tally.shape = tuple(y.shape)
        tally.with_gradient |= torch.is_grad_enabled()
        if isinstance(origin, ActivationTally):
            tally.reads = origin
            origin.readers.add(name)
        self.hooks.attach(y, tally.signal, call.output_axis)
        self._list_unseen(name, call, y)
        return tally

    def _tally(
        self, name: str, operation: Operation, call: WeightedCall, weight: str | None, follows: str | None
    ) -> WeightedTally:
        order, kept = self.tallies.next_order(), call.without_input()
        tally = WeightedTally(name, operation.name, order, call.output_axis, ErrorSignal(), kept, weight, follows)
        self.tallies.weighted[name] = tally
        return tally

    def _list_unseen(self, name: str, call: WeightedCall, y: Tensor) -> None:
        if call.inner:
            self.tallies.not_seen[name] = call.inner
        if call.weight.requires_grad and not y.requires_grad:
            self.tallies.not_seen[f"{name} (error signal)"] = (
                "it ran without gradients although its weight is trainable, as reentrant checkpointing does"
            )
