"""One probed step of a training: a frozen record."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from lightning_tricks.probes.record import Record
from lightning_tricks.probes.records import ActivationRecord, ParameterRecord, WeightedRecord

R = TypeVar("R", ActivationRecord, WeightedRecord, ParameterRecord)


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What one probed step showed.

    Args:
        step: Number of optimiser steps before this one.
        loss: The loss the step went back from; NaN where none was seen.
        nonfinite_loss: Whether a loss was seen that is NaN or Inf.
        loss_scale: The factor by which loss and error signals were scaled when they were seen (they no longer are).
        activations: One record per call of an activation function, in the order of execution.
        weighted: One record per call of a weighted operation, in the order of execution.
        parameters: One record per parameter.
        not_seen: What could not be looked at, and why.
    """

    step: int = 0
    loss: float = math.nan
    nonfinite_loss: bool = False
    loss_scale: float = 1.0
    activations: tuple[ActivationRecord, ...] = ()
    weighted: tuple[WeightedRecord, ...] = ()
    parameters: tuple[ParameterRecord, ...] = ()
    not_seen: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        seen = f"{len(self.activations)} activations, {len(self.weighted)} weighted, {len(self.parameters)} parameters"
        missed = f", {len(self.not_seen)} not seen" if self.not_seen else ""
        return f"Snapshot(step={self.step}, loss={self.loss:.3g}, {seen}{missed})"

    @functools.cached_property
    def suspicious(self) -> bool:
        """Whether anything in this step was NaN or Inf: an output, an input, a weight, a gradient or the loss."""
        layers = any(r.nonfinite for r in self.activations) or any(
            r.nonfinite or r.nonfinite_input or (r.signal is not None and not math.isfinite(float(r.signal.square)))
            for r in self.weighted
        )
        parameters = any(r.nonfinite or r.nonfinite_gradient for r in self.parameters)
        return layers or parameters or self.nonfinite_loss

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "step": self.step,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "nonfinite_loss": self.nonfinite_loss,
            "loss_scale": self.loss_scale,
            "activations": [record.to_dict() for record in self.activations],
            "weighted": [record.to_dict() for record in self.weighted],
            "parameters": [record.to_dict() for record in self.parameters],
            "not_seen": dict(self.not_seen),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Snapshot:
        """The snapshot that ``to_dict`` wrote, without sums."""
        return cls(
            values["step"],
            math.nan if values["loss"] is None else values["loss"],
            values["nonfinite_loss"],
            values["loss_scale"],
            tuple(map(ActivationRecord.from_dict, values["activations"])),
            tuple(map(WeightedRecord.from_dict, values["weighted"])),
            tuple(map(ParameterRecord.from_dict, values["parameters"])),
            dict(values["not_seen"]),
        )

    @np.errstate(all="ignore")
    def merge(self, other: Snapshot) -> Snapshot:
        """Both snapshots' patterns together: of two ranks in one step, or of two steps in a window (the later step)."""
        losses = [loss for loss in (self.loss, other.loss) if not math.isnan(loss)]
        return Snapshot(
            max(self.step, other.step),
            sum(losses) / len(losses) if losses else math.nan,
            self.nonfinite_loss or other.nonfinite_loss,
            max(self.loss_scale, other.loss_scale),
            _merge(self.activations, other.activations),
            _merge(self.weighted, other.weighted),
            _merge(self.parameters, other.parameters),
            {**self.not_seen, **other.not_seen},
        )

    def light(self) -> Snapshot:
        """Without the sums per unit: what a long history keeps."""
        return dataclasses.replace(
            self,
            activations=tuple(record.light() for record in self.activations),
            weighted=tuple(record.light() for record in self.weighted),
            parameters=tuple(record.light() for record in self.parameters),
        )

    def only(self, keep: Callable[[str], bool]) -> Snapshot:
        """The records of the layers whose name is kept, with the parameters of those layers."""
        return dataclasses.replace(
            self,
            activations=tuple(record for record in self.activations if keep(record.name)),
            weighted=tuple(record for record in self.weighted if keep(record.name)),
            parameters=tuple(r for r in self.parameters if keep(r.name) or (r.layer is not None and keep(r.layer))),
        )

    def records(self) -> Iterable[Record]:
        """All records: activations and weighted operations in the order of execution, then parameters."""
        layers: list[Any] = [*self.activations, *self.weighted]
        yield from sorted(layers, key=lambda record: record.order)
        yield from self.parameters

    def activation(self, name: str) -> ActivationRecord | None:
        return next((record for record in self.activations if record.name == name), None)


def _merge(ours: tuple[R, ...], theirs: tuple[R, ...]) -> tuple[R, ...]:
    others: dict[str, Any] = {record.name: record for record in theirs}
    with np.errstate(all="ignore"):  # NaN and Inf go on as NaN and Inf
        merged: list[Any] = [
            record.merge(others.pop(record.name)) if record.name in others else record for record in ours
        ]
    return (*merged, *others.values())
