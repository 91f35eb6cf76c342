"""One probed step of a training: a frozen record."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import numpy as np

from lightning_tricks.probes.records.activations import ActivationRecord
from lightning_tricks.probes.records.loss_and_norm import LossRecord, NormalizationRecord
from lightning_tricks.probes.records.loss_path import BroadcastRecord, SoftmaxRecord
from lightning_tricks.probes.records.parameters import ParameterRecord
from lightning_tricks.probes.records.preflight import PreflightRecord
from lightning_tricks.probes.records.record import StepRecord, to_json
from lightning_tricks.probes.records.training import TrainingRecord, merged
from lightning_tricks.probes.records.validation import ValidationRecord
from lightning_tricks.probes.records.weighted import WeightedRecord

R = TypeVar("R", bound=StepRecord)
KINDS: Mapping[str, type[StepRecord]] = {
    "activations": ActivationRecord,
    "weighted": WeightedRecord,
    "parameters": ParameterRecord,
    "losses": LossRecord,
    "normalizations": NormalizationRecord,
    "softmaxes": SoftmaxRecord,
    "broadcasts": BroadcastRecord,
}

_shown: list[Callable[[Snapshot], str]] = []


def shown_by(show: Callable[[Snapshot], str]) -> Callable[[Snapshot], str]:
    """Enter the function that makes the HTML which a notebook shows of a snapshot: it stands above."""
    _shown[:] = [show]
    return show


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
        losses: One record per call of a loss function.
        normalizations: One record per call of a batch normalisation with running statistics.
        recent_losses: The losses of the steps since the snapshot before, the oldest first and this step's the last,
            thinned evenly where they are many; empty where nobody was there to note them.
        validation_loss: The latest validation loss known when the next step was looked at, or when the training ended:
            that of a validation between the two, else the one known before; NaN where none is known.
        learning_rate: The largest learning rate among the optimisers' parameter groups; NaN where none is known.
        epoch: Number of passes over the training data before this step; NaN where nobody counts them.
        partial: Whether layers were left out by their names, so that its first and last layer need not be the model's.
        softmaxes: One record per call of a softmax.
        broadcasts: Operations on the way to the loss that met the outputs of a batch with the targets of all others.
        training: What happened around the forward pass; None in a history of a version that did not look there.
        ended: Whether the training ended before the next step was looked at.
        origin: Of the first NaN or Inf: ``operation``, the call that made it, and ``line``; empty where nobody knows.
        validation: What the first validation gave the network, which came after this step; None at all other steps.
        preflight: What further forwards of this step showed; None where none was made.
    """

    step: int = 0
    loss: float = math.nan
    nonfinite_loss: bool = False
    loss_scale: float = 1.0
    activations: tuple[ActivationRecord, ...] = ()
    weighted: tuple[WeightedRecord, ...] = ()
    parameters: tuple[ParameterRecord, ...] = ()
    not_seen: Mapping[str, str] = dataclasses.field(default_factory=dict)
    losses: tuple[LossRecord, ...] = ()
    normalizations: tuple[NormalizationRecord, ...] = ()
    recent_losses: tuple[float, ...] = ()
    validation_loss: float = math.nan
    learning_rate: float = math.nan
    epoch: float = math.nan
    partial: bool = False
    softmaxes: tuple[SoftmaxRecord, ...] = ()
    broadcasts: tuple[BroadcastRecord, ...] = ()
    training: TrainingRecord | None = None
    ended: bool = False
    origin: Mapping[str, str] = dataclasses.field(default_factory=dict)
    validation: ValidationRecord | None = None
    preflight: PreflightRecord | None = None

    def __repr__(self) -> str:
        seen = f"{len(self.activations)} activations, {len(self.weighted)} weighted, {len(self.parameters)} parameters"
        missed = f", {len(self.not_seen)} not seen" if self.not_seen else ""
        return f"Snapshot(step={self.step}, loss={self.loss:.3g}, {seen}{missed})"

    def _repr_html_(self) -> str | None:
        return _shown[0](self) if _shown else None

    @functools.cached_property
    def suspicious(self) -> bool:
        """Whether anything in this step was NaN or Inf: an output, an input, a weight, a gradient or the loss."""
        records = itertools.chain(self.activations, self.weighted, self.parameters)
        values, inputs, gradients = (operator.attrgetter(f"nonfinite{what}") for what in ("", "_input", "_gradient"))
        signals = (record.signal for record in self.weighted if record.signal is not None)
        return (
            self.nonfinite_loss
            or any(map(values, records))
            or any(map(inputs, self.weighted))
            or any(map(gradients, self.parameters))
            or not all(math.isfinite(float(signal.square)) for signal in signals)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**self.head(), **{kind: [record.to_dict() for record in getattr(self, kind)] for kind in KINDS}}

    def head(self) -> dict[str, Any]:
        """What is no record of a layer, as plain JSON."""
        return {
            "step": self.step,
            "loss": to_json(self.loss),
            "nonfinite_loss": self.nonfinite_loss,
            "loss_scale": self.loss_scale,
            "not_seen": dict(self.not_seen),
            "origin": dict(self.origin),
            "recent_losses": to_json(self.recent_losses),
            "validation_loss": to_json(self.validation_loss),
            "learning_rate": to_json(self.learning_rate),
            "epoch": to_json(self.epoch),
            "partial": self.partial,
            "training": None if self.training is None else self.training.to_dict(),
            "ended": self.ended,
            "validation": None if self.validation is None else self.validation.to_dict(),
            "preflight": None if self.preflight is None else self.preflight.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Snapshot:
        """The snapshot that ``to_dict`` wrote, without sums."""
        records: dict[str, Any] = {
            kind: tuple(record.from_dict(each) for each in values.get(kind, ())) for kind, record in KINDS.items()
        }
        training, validation, preflight = (values.get(name) for name in ("training", "validation", "preflight"))
        return cls(
            step=values["step"],
            loss=_number(values.get("loss")),
            nonfinite_loss=values.get("nonfinite_loss", False),
            loss_scale=values.get("loss_scale", 1.0),
            not_seen=dict(values.get("not_seen", {})),
            origin=dict(values.get("origin", {})),
            recent_losses=tuple(_number(loss) for loss in values.get("recent_losses", ())),
            validation_loss=_number(values.get("validation_loss")),
            learning_rate=_number(values.get("learning_rate")),
            epoch=_number(values.get("epoch")),
            partial=values.get("partial", False),
            training=None if training is None else TrainingRecord.from_dict(training),
            ended=values.get("ended", False),
            validation=None if validation is None else ValidationRecord.from_dict(validation),
            preflight=None if preflight is None else PreflightRecord.from_dict(preflight),
            **records,
        )

    @np.errstate(all="ignore")
    def merge(self, other: Snapshot) -> Snapshot:
        """Both snapshots' patterns together: of two ranks in one step, or of two steps in a window (the later step)."""
        return Snapshot(
            step=max(self.step, other.step),
            loss=_mean(self.loss, other.loss),
            nonfinite_loss=self.nonfinite_loss or other.nonfinite_loss,
            loss_scale=max(self.loss_scale, other.loss_scale),
            activations=_merge(self.activations, other.activations),
            weighted=_merge(self.weighted, other.weighted),
            parameters=_merge(self.parameters, other.parameters),
            not_seen={**self.not_seen, **other.not_seen},
            losses=_merge(self.losses, other.losses),
            normalizations=_merge(self.normalizations, other.normalizations),
            recent_losses=tuple((a + b) / 2 for a, b in zip(self.recent_losses, other.recent_losses, strict=False)),
            validation_loss=_mean(self.validation_loss, other.validation_loss),
            learning_rate=max(self.learning_rate, other.learning_rate),
            epoch=max(self.epoch, other.epoch),
            partial=self.partial or other.partial,
            softmaxes=_merge(self.softmaxes, other.softmaxes),
            broadcasts=_merge(self.broadcasts, other.broadcasts),
            training=merged(self.training, other.training),
            ended=self.ended or other.ended,
            origin=self.origin or other.origin,
            validation=self.validation or other.validation,
            preflight=self.preflight or other.preflight,
        )

    def light(self) -> Snapshot:
        """Without the sums per unit: what a long history keeps."""
        made = dataclasses.replace(
            self,
            activations=tuple(record.light() for record in self.activations),
            weighted=tuple(record.light() for record in self.weighted),
            parameters=tuple(record.light() for record in self.parameters),
        )
        made.__dict__["packing"] = self.packing  # sums are not packed
        return made

    def matching(self, globs: Sequence[str]) -> Snapshot:
        """The layers whose name matches one of these globs; the snapshot itself where that is all of it."""
        if "*" in globs:
            return self
        return self.only(lambda name: any(fnmatchcase(name, glob) for glob in globs))

    def only(self, keep: Callable[[str], bool]) -> Snapshot:
        """The records of the layers whose name is kept, with the parameters of those layers; losses are no layers."""
        activations = tuple(record for record in self.activations if keep(record.name))
        weighted = tuple(record for record in self.weighted if keep(record.name))
        left_out = len(activations) < len(self.activations) or len(weighted) < len(self.weighted)
        return dataclasses.replace(
            self,
            partial=self.partial or left_out,
            activations=activations,
            weighted=weighted,
            parameters=tuple(r for r in self.parameters if keep(r.name) or (r.layer is not None and keep(r.layer))),
            normalizations=tuple(record for record in self.normalizations if keep(record.name)),
        )

    def records(self) -> Iterable[StepRecord]:
        """All records: activations and weighted operations in the order of execution, then parameters."""
        layers: list[Any] = [*self.activations, *self.weighted]
        yield from sorted(layers, key=lambda record: record.order)
        yield from self.parameters

    def activation(self, name: str) -> ActivationRecord | None:
        return self._activations.get(name)

    @functools.cached_property
    def _activations(self) -> Mapping[str, ActivationRecord]:
        return {record.name: record for record in reversed(self.activations)}

    @functools.cached_property
    def remembered(self) -> dict[Any, Any]:
        """What was worked out of this snapshot, by the function that did it; no part of what is stored."""
        return {}

    @functools.cached_property
    def packing(self) -> dict[str, Any]:
        """Where its records stand in what is saved of a history, once they do: they are packed once."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _mean(one: float, other: float) -> float:
    """Of those that are numbers."""
    known = [value for value in (one, other) if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _merge(ours: tuple[R, ...], theirs: tuple[R, ...]) -> tuple[R, ...]:
    others: dict[str, Any] = {record.name: record for record in theirs}
    with np.errstate(all="ignore"):  # NaN and Inf go on as NaN and Inf
        merged: list[Any] = [
            record.merge(others.pop(record.name)) if record.name in others else record  # type: ignore[attr-defined]
            for record in ours
        ]
    return (*merged, *others.values())
