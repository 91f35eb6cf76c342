"""The way from a network's output to its loss, known by shapes and identity alone: nothing is computed."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_tricks._compat import torch_tensors
from lightning_tricks.probes.layout import Layout
from lightning_tricks.probes.measure.tallies import ActivationTally, Tallies, WeightedTally, origin_of
from lightning_tricks.probes.records.loss_path import BroadcastRecord, SoftmaxRecord, stretched
from lightning_tricks.probes.watch.annotations import TensorAnnotations

_UNKNOWN = ("", math.nan)


@dataclass(frozen=True)
class ClassTarget:
    """The numbers of classes that a call of a loss wanted, known by where they lie: a batch that is held holds them.

    Args:
        place: The address of the first, and how many they are.
        outputs: Number of classes that the outputs know.
        ignored: The number that is none of a class.
        balanced: Whether the classes have weights.
    """

    place: tuple[int, int]
    outputs: int
    ignored: int
    balanced: bool


@dataclass
class LossPath:
    """What happens to outputs before they are a loss.

    Args:
        tallies: Where it is noted.
        embedded: The tokens that embeddings were looked up for last.
        following: Whether some outputs were broadcast against targets: then every call is asked what becomes of them.
        classes: The targets of the last call of each loss that is told the number of a class, by the call's name.
    """

    tallies: Tallies
    following: bool = False
    embedded: deque[Tensor] = field(default_factory=lambda: deque(maxlen=4))
    classes: dict[str, ClassTarget] = field(default_factory=dict)
    _crossed: TensorAnnotations = field(default_factory=TensorAnnotations)  # the records of what was broadcast
    _raised: TensorAnnotations = field(default_factory=TensorAnnotations)  # whose last dimension of 1 was asked for
    _directions: TensorAnnotations = field(default_factory=TensorAnnotations)  # of unit length, or their products
    _layouts: TensorAnnotations = field(default_factory=TensorAnnotations)  # how they lie in the output of a layer

    def clear(self) -> None:
        self.following = False
        self.embedded.clear()
        for noted in (self._crossed, self._raised, self._directions, self._layouts):
            noted.clear()

    def softmax(self, name: str, function: str, x: Tensor, axis: int, source: Any) -> None:
        """Note a call of softmax; ``source``: what is known of its input."""
        axis, origin = axis % x.dim(), origin_of(source)
        weighted = isinstance(origin, WeightedTally) and origin.axis % x.dim() == axis
        scores = origin.name if weighted else None
        record = SoftmaxRecord(name, function, self.tallies.order, tuple(x.shape), axis, scores)
        known = self.tallies.softmaxes.get(name)
        self.tallies.softmaxes[name] = record if known is None else known.merge(record)

    def note_tokens(self, operation: str, args: tuple[Any, ...]) -> None:
        """Note the tokens of a batch of sequences."""
        if operation == "embedding":
            whole = [x for x in args[:2] if isinstance(x, Tensor) and not x.is_floating_point()]
            self.embedded.extend(ids for ids in whole if ids.dim() == 2 and 1 not in ids.shape)

    def note_classes(self, name: str, target: Any, outputs: int, ignored: int, weight: Any) -> None:
        """Note the targets of a loss where they are numbers of classes."""
        if isinstance(target, Tensor) and not target.is_floating_point() and target.numel():
            place = (target.data_ptr(), target.numel())
            self.classes[name] = ClassTarget(place, outputs, ignored, weight is not None)

    def note_shape(self, x: Tensor, output: Any) -> None:
        """Note a last dimension of 1 that somebody has put there: what it is broadcast with is meant so."""
        if isinstance(output, Tensor) and output.shape[-1:] == (1,) and output.dim() > x.dim():
            self._raised.write(output, True)

    def layout(self, x: Tensor, source: Any) -> Layout | None:
        """How a tensor lies in a layer's output, where that is known; ``source``: what is known of the tensor."""
        known: Layout | None = self._layouts.read(x)
        if known is None and isinstance(source, WeightedTally):
            return Layout(source.name, tuple(x.shape), source.axis)
        return known

    def note_layout(self, function: str, x: Tensor, output: Tensor, source: Any) -> None:
        """Note how what a function made of a tensor lies in the output of a layer."""
        before = self.layout(x, source)
        after = None if before is None else before.after(function, x, output)
        if after is not None:
            self._layouts.write(output, after)

    def may_cross(self, one: Any, other: Any) -> bool:
        """Whether an operation on two tensors broadcasts one number a pattern over all patterns."""
        if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.dim() == other.dim():
            return False
        return stretched(one.shape, other.shape) and not (self._raised.read(one) or self._raised.read(other))

    def cross(self, name: str, function: str, x: Tensor, target: Tensor, source: Any, output: Any) -> None:
        """Note such an operation, to be kept if its output becomes the loss.

        Args:
            name: The name of the call.
            function: What was called.
            x: The operand that depends on the network.
            target: The other one.
            source: What is known of ``x``.
            output: What became of both.
        """
        origin = origin_of(source)
        origin = origin.weights if isinstance(origin, ActivationTally) else origin
        if not isinstance(origin, WeightedTally):
            origin = next(reversed(self.tallies.weighted.values()), None)
        layer = None if origin is None else origin.name
        shapes = tuple(x.shape), tuple(target.shape)
        self._crossed.write(output, (BroadcastRecord(name, function, self.tallies.order, *shapes, layer),))
        self.following = True

    def follow(self, args: tuple[Any, ...], output: Any) -> None:
        """What was broadcast stays so as long as its shape stays, and is on the way to the loss as one number."""
        if not isinstance(output, Tensor) or not output.requires_grad:
            return
        found: tuple[BroadcastRecord, ...] = ()
        for x in args:
            records = self._crossed.read(x) if isinstance(x, Tensor) else None
            if records is not None and (output.dim() == 0 or output.shape == x.shape):
                found += records
        if found:
            self._crossed.write(output, (*found, *(self._crossed.read(output) or ())))

    def arrive(self, loss: Tensor) -> None:
        """A backward pass begins: what has come to it was on the way."""
        for record in self._crossed.read(loss) or ():
            self.tallies.broadcasts.setdefault(record.name, record)

    def note_direction(self, output: Tensor, *, weights: bool) -> None:
        """Note vectors that were divided by their length; ``weights``: whether they are weights."""
        self._directions.write(output, ("weights" if weights else "patterns", 1.0))

    def note_product(self, one: Any, other: Any, output: Any) -> None:
        """Note a product of such vectors: cosines."""
        if not self._directions:
            return
        (kind, length), (other_kind, other_length) = self._direction(one), self._direction(other)
        if {kind, other_kind} == {"weights", "patterns"} and isinstance(output, Tensor):
            self._directions.write(output, ("cosines", length * other_length))

    def note_scale(self, args: tuple[Any, ...], output: Any, *, inverse: bool = False) -> None:
        """Note that such vectors, or cosines, were multiplied by a number; a tensor as factor may be learned."""
        if not self._directions:
            return
        factor = next((each for each in args if isinstance(each, (int, float)) and each), None)
        kind, length = next((self._direction(x) for x in args if isinstance(x, Tensor)), _UNKNOWN)
        if factor is not None and kind and isinstance(output, Tensor):
            self._directions.write(output, (kind, abs(length / factor if inverse else length * factor)))

    def bound(self, x: Tensor) -> float:
        """How large the cosines of patterns and weights can become that these are; NaN where they are none."""
        kind, length = self._direction(x)
        return length if kind == "cosines" else math.nan

    def _direction(self, x: Any) -> tuple[str, float]:
        if not isinstance(x, Tensor):
            return _UNKNOWN
        return self._directions.read(x) or self._directions.read(torch_tensors.base(x)) or _UNKNOWN


def softmax_axis(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The dimension that a call of softmax runs over, or would by the rule of old torch."""
    axis = args[1] if len(args) > 1 else kwargs.get("dim")
    return axis if isinstance(axis, int) else 0 if x.dim() in (0, 1, 3) else 1


def depends_on_network(x: Tensor) -> bool:
    """Whether a tensor was made of something that is trained, and is no weight itself."""
    return x.requires_grad and x.grad_fn is not None and torch.is_grad_enabled()
