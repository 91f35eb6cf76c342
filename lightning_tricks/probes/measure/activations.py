"""How a pre-activation becomes numbers: a sample before the function runs, a sample after, sums of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_tricks._compat import torch_tensors
from lightning_tricks.activations import BoundActivation
from lightning_tricks.probes.measure.gradient_hooks import GradientHooks
from lightning_tricks.probes.measure.tallies import (
    ActivationTally,
    ErrorSignal,
    Tallies,
    Unmeasured,
    WeightedTally,
    origin_of,
)
from lightning_tricks.probes.records.activations import UNKNOWN
from lightning_tricks.stats import ActivationSums, MomentSums, Sample, sample


class ActivationCall(NamedTuple):
    """An activation between its input and its output.

    Args:
        overwritten: Whether its input is a view that it writes over.
        known: The moments of its input, which is the output of a layer that has counted them.
    """

    tally: ActivationTally
    g: BoundActivation
    before: Sample
    overwritten: bool
    known: MomentSums | None


@dataclass
class ActivationCounter:
    """Counts calls of activation functions.

    Args:
        tallies: Where they are counted.
        hooks: Where the error signals come from.
        max_patterns: The most patterns per unit that are looked at.
    """

    tallies: Tallies
    hooks: GradientHooks
    max_patterns: int | None

    def before(
        self, name: str, g: BoundActivation, a: Tensor, source: Any, axis: int | None, *, in_place: bool, gate: bool
    ) -> ActivationCall:
        """Take the sample of a pre-activation, which the function may be about to overwrite.

        Args:
            name: The name of the call.
            g: The function.
            a: The pre-activation.
            source: What is known of it: the tally whose output it is, or anything else.
            axis: The dimension of the units in the layer before, if there was one.
            in_place: Whether the function writes over its input.
            gate: Whether the call is a gate already by its input.
        """
        slopes = dict(g.parameters).get("weight")  # PReLU's, per channel: they name the dimension of the units
        by_unit = isinstance(slopes, Tensor) and slopes.numel() > 1
        axis = _axis(a, source, axis, by_unit)
        view = in_place and torch_tensors.is_view(a)
        weights = source if isinstance(source, WeightedTally) else None
        signal = None if weights is None or weights.axis != axis or view else weights.signal
        known = None if weights is None or weights.axis != axis else weights.outputs
        tally = self.tallies.activations.get(name)
        if tally is None:
            own = ErrorSignal() if signal is None else signal
            tally = ActivationTally(name, g.name, self.tallies.next_order(), axis, own, gate=gate, weights=weights)
            origin = origin_of(source)
            tally.behind = origin if isinstance(origin, WeightedTally) else None
            self.tallies.activations[name] = tally
        if signal is None and not view:
            self.hooks.attach(a, tally.signal, axis)
        before = sample(a, axis, self.max_patterns, copy=in_place, dim=0 if by_unit else None)
        return ActivationCall(tally, g, before, view and a.requires_grad, known)

    def after(self, call: ActivationCall, output: Tensor) -> ActivationTally:
        """Count the call, now that its output is known."""
        tally, g, before, overwritten, known = call
        after = sample(output, tally.axis, self.max_patterns, dim=before.dim)
        with torch.no_grad():
            slope = g.derivative(before.values, after.values)
            tally.add(ActivationSums.of(g, before, after, output, slope, known))
        if overwritten:  # a hook on a view that is overwritten never fires: delta = g'(a) dLoss/dg
            self.hooks.attach(output, tally.signal, tally.axis, slope, before.dim)
        return tally

    def unknown(self, known: Unmeasured, output: Tensor) -> ActivationTally | None:
        """Count what elementwise functions made of a pre-activation; None where the two do not belong together."""
        weights, a = known.weights, known.entered
        if a is None or tuple(output.shape) != known.shape or -weights.axis > output.dim():
            return None
        tally = self.tallies.activations.get(known.name)
        if tally is None:
            signal = weights.signal if known.direct else ErrorSignal()
            tally = ActivationTally(known.name, UNKNOWN, self.tallies.next_order(), weights.axis, signal)
            tally.weights, tally.behind = weights if known.direct else None, weights
            self.tallies.activations[known.name] = tally
        with torch.no_grad():
            after = sample(output, weights.axis, self.max_patterns, dim=a.dim)
            tally.add(ActivationSums.of_unknown(a, after, output))
        return tally


def _axis(a: Tensor, source: Any, axis: int | None, by_unit: bool) -> int:
    """The dimension of the units of a pre-activation, negative; 0 where it has one unit."""
    if a.dim() == 0:
        return 0
    if by_unit:
        return min(1 - a.dim(), -1)
    if isinstance(source, (WeightedTally, ActivationTally)):
        axis = source.axis
    elif axis is None:
        axis = -1 if a.dim() < 4 else 1 - a.dim()
    return axis if -axis <= a.dim() else -1
