"""What is being counted while a step runs: one tally per layer, its sums still on the device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_tricks.probes.measure.operations import WeightedCall
from lightning_tricks.stats import ActivationSums, MomentSums, SquareSums, WeightedSums

if TYPE_CHECKING:
    from lightning_tricks.probes.measure.loss_tally import LossTally
    from lightning_tricks.probes.measure.normalizations import NormalizationTally


@dataclass
class Signal:
    """The error signal of one tensor; shared by a weighted operation and the activation that follows it.

    Args:
        torn: Whether its parts arrived in passes that cannot be added any more: then there is no number to tell.
    """

    sums: SquareSums | None = None
    torn: bool = False

    def add(self, sums: SquareSums) -> None:
        self.sums = sums if self.sums is None else self.sums.merge(sums)


@dataclass
class ActivationTally:
    """One call of an activation function in every micro-batch of a step.

    Args:
        gate: Whether the output is a factor, or only leads to one.
        weights: The weighted operation whose output it takes as it is; None for any other input.
        readers: The weighted operations that take its output.
        outputs: Moments of the outputs of the last micro-batch alone: the next layer's input.
    """

    name: str
    function: str
    order: int
    axis: int
    signal: Signal
    gate: bool = False
    weights: WeightedTally | None = None
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
        outputs: Moments of the outputs of the last micro-batch alone.
    """

    name: str
    operation: str
    order: int
    axis: int
    signal: Signal
    call: WeightedCall
    weight: str | None
    follows: str | None
    reads: ActivationTally | None = None
    elements: int = 0
    with_gradient: bool = False
    sums: WeightedSums | None = None
    outputs: MomentSums | None = None

    def add(self, sums: WeightedSums) -> None:
        self.outputs = sums.output
        self.sums = sums if self.sums is None else self.sums.merge(sums)


@dataclass(frozen=True)
class Derived:
    """The annotation about a tensor that a linear operation (view, shift, dropout) made.

    Args:
        origin: Of which counted output; None where it was none.
        dropout: p of the dropout that was this operation; 0 else.
    """

    origin: WeightedTally | ActivationTally | None
    dropout: float = 0.0


def origin_of(annotation: Any) -> Any:
    """The tally of the output that a tensor is, or that linear operations made it of; None where it is unknown."""
    return annotation.origin if isinstance(annotation, Derived) else annotation


@dataclass
class Tallies:
    """Everything counted in one step, in the order of execution."""

    activations: dict[str, ActivationTally] = field(default_factory=dict)
    weighted: dict[str, WeightedTally] = field(default_factory=dict)
    losses: dict[str, LossTally] = field(default_factory=dict)
    normalizations: dict[str, NormalizationTally] = field(default_factory=dict)
    not_seen: dict[str, str] = field(default_factory=dict)
    loss: Tensor | None = None
    clock: int = 0

    def mark_shared_gates(self) -> None:
        """Weights that feed a gate at one time step feed one at all of them, also where a state begins as zeros."""
        fed = {t.weights.weight for t in self.activations.values() if t.gate and t.weights is not None} - {None}
        for tally in self.activations.values():
            tally.gate = tally.gate or (tally.weights is not None and tally.weights.weight in fed)

    def tick(self) -> int:
        self.clock += 1
        return self.clock
