"""What happened around the forward pass of a step: backward passes, optimiser steps, learning rates, whose tensors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from lightning_tricks.probes.records.record import to_json


@dataclasses.dataclass(frozen=True)
class LooseWeight:
    """A weight that the loss depends on, but that is neither a parameter of the model nor held by an optimiser.

    Args:
        name: How the model reaches it, such as ``"layers[0].weight"``.
        module: The module whose attribute leads to it.
        shape: Its shape.
        size: Root mean square of its entries.
        fresh: Whether they are a fresh draw from torch's default: uniform within 1 / sqrt(fan_in).
    """

    name: str
    module: str
    shape: tuple[int, ...]
    size: float
    fresh: bool

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LooseWeight:
        """Of the entry that the ``to_dict`` of its record wrote."""
        known = {f.name: values[f.name] for f in dataclasses.fields(cls)}
        return cls(**{**known, "shape": tuple(known["shape"]), "size": _number(known["size"])})


@dataclasses.dataclass(frozen=True)
class TrainingRecord:
    """The training loop in one probed step.

    Args:
        optimizers: Number of optimisers that are known to train the model.
        forwards: Calls of the model, or of parts of it by the loop itself.
        backwards: Backward passes.
        detached: Losses that could not go backward, as they need no gradient.
        steps: Optimiser steps.
        rates: Learning rate of every parameter group, in the order of the optimisers.
        first_rates: What a schedule began with, for the same groups; the rate itself where there is no schedule.
        decays: Weight decay of the same groups; NaN where it is not known what the optimiser does with it.
        decoupled: Whether it shrinks the weights of the group beside the gradient's step (AdamW), not by way of the
            gradient (SGD).
        held: Parameters of the model that the optimisers hold.
        foreign: Tensors that they hold and that are no parameters of the model.
        foreign_with_gradient: How many of those had a gradient at a step.
        foreign_shapes: The shapes of those without.
        loose: Weights that are neither the model's parameters nor an optimiser's, and that the loss depends on.
        fresh: Frozen weights that still are a fresh draw, and whose output enters weights that are trained.
        cleared: Parameters stepped with a gradient that is known to be new since their step before.
        stale: Parameters stepped with a gradient that still holds that of their step before.
    """

    optimizers: int = 0
    forwards: int = 0
    backwards: int = 0
    detached: int = 0
    steps: int = 0
    rates: tuple[float, ...] = ()
    first_rates: tuple[float, ...] = ()
    held: int = 0
    foreign: int = 0
    foreign_with_gradient: int = 0
    foreign_shapes: tuple[tuple[int, ...], ...] = ()
    loose: tuple[LooseWeight, ...] = ()
    fresh: tuple[str, ...] = ()
    cleared: int = 0
    stale: int = 0
    decays: tuple[float, ...] = ()
    decoupled: tuple[bool, ...] = ()

    @property
    def rate(self) -> float:
        """The largest learning rate; NaN where none is known."""
        return max((rate for rate in self.rates if not math.isnan(rate)), default=math.nan)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        fields: dict[str, Any] = to_json(dataclasses.asdict(self))
        return fields

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingRecord:
        """The record that ``to_dict`` wrote, in this version or another: what is unknown here is left out."""
        known = {f.name for f in dataclasses.fields(cls)}
        restored: dict[str, Any] = {key: _tuples(value) for key, value in values.items() if key in known}
        for key in ("rates", "first_rates", "decays"):
            restored[key] = tuple(math.nan if rate is None else rate for rate in restored.get(key, ()))
        restored["loose"] = tuple(map(LooseWeight.from_dict, values.get("loose", ())))
        return cls(**restored)

    def merge(self, other: TrainingRecord | None) -> TrainingRecord:
        """The record of two ranks, or of two steps: the larger counts, and the other tuples."""
        if other is None:
            return self
        counts = {
            f.name: max(getattr(self, f.name), getattr(other, f.name))
            for f in dataclasses.fields(self)
            if f.type == "int"
        }
        return dataclasses.replace(other, **counts)


def merged(one: TrainingRecord | None, other: TrainingRecord | None) -> TrainingRecord | None:
    """Of which either may not be known."""
    return other if one is None else one.merge(other)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
