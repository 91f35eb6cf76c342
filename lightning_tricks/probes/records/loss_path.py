"""What is known about calls on the way from a network's output to its loss: softmax, and shapes that broadcast."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lightning_tricks.probes.records.record import StepRecord

__all__ = ["BroadcastRecord", "SoftmaxRecord"]


@dataclasses.dataclass(frozen=True)
class SoftmaxRecord(StepRecord):
    """One call of softmax or log_softmax whose input needs a gradient.

    Args:
        name: Named as every call: the path of an ``nn.Softmax``.
        function: ``"softmax"`` or ``"log_softmax"``.
        after: The order of the last record before it.
        shape: Of the input; of several calls in a step the one with the longest axis.
        axis: The dimension that it runs over, counted from the front.
        scores: The weighted record whose output comes in with nothing but linear operations between and whose units
            lie along that axis; None else.
    """

    function: str = "softmax"
    after: int = 0
    shape: tuple[int, ...] = ()
    axis: int = 0
    scores: str | None = None

    @property
    def length(self) -> int:
        """Of the axis: over one entry the softmax is 1, whatever comes in."""
        return self.shape[self.axis]

    def merge(self, other: SoftmaxRecord) -> SoftmaxRecord:
        """The call with the longer axis."""
        return max(self, other, key=lambda record: record.length)


@dataclasses.dataclass(frozen=True)
class BroadcastRecord(StepRecord):
    """An elementwise operation that met every output of a batch with the target of every other, on the way to the loss.

    Args:
        name: Named as every call: ``"sub"`` outside of the model.
        function: ``"sub"``, ``"mul"``, ``"pow"`` ...
        after: The order of the last record before it.
        output_shape: Of the operand that depends on the network.
        target_shape: Of the other operand, which needs no gradient.
        layer: The weighted record whose output came in, or the last one before; None without any.
    """

    function: str = ""
    after: int = 0
    output_shape: tuple[int, ...] = ()
    target_shape: tuple[int, ...] = ()
    layer: str | None = None

    def merge(self, other: BroadcastRecord) -> BroadcastRecord:
        """The same call of another batch tells nothing new."""
        return self


def stretched(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether the shapes are those of one number a pattern, once with a last dimension of 1 and once without.

    >>> stretched((8, 1), (8,)), stretched((8, 1), (1, 8)), stretched((8, 3), (3,)), stretched((1, 1), (1,))
    (True, False, False, False)
    """
    short, long = sorted((tuple(one), tuple(other)), key=len)
    return len(long) == len(short) + 1 and long[-1] == 1 and long[:-1] == short and short[-1:] > (1,)
