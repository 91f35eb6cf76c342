"""A run of snapshots as a tidy table: one number a row."""

from __future__ import annotations

import csv
import dataclasses
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from lightning_tricks.diagnosis.diagnosis import Diagnosis, view
from lightning_tricks.probes import ActivationRecord, LossRecord, NormalizationRecord, Snapshot, WeightedRecord
from lightning_tricks.probes.records.record import StepRecord
from lightning_tricks.report.files import replaced

_NO_FLAGS = ("gate", "ran", "reached", "altered")  # what most records have, or what only rules ask
COLUMNS = ("step", "kind", "layer", "function_or_operation", "measure", "value")


def rows(history: Sequence[Snapshot]) -> Iterator[tuple[int, str, str, str, str, float]]:
    """The rows of the table: every measure of every record of every snapshot.

    A measure that does not apply (NaN) has no row. A flag has a row only where it is unlike most: of value 1 where
    ``nonfinite``, ``symmetric`` ... are true, of value 0 where ``trainable``, ``training`` ... are not. Loss, learning
    rate and validation loss are rows of kind ``"model"``; the losses between two probed steps belong to no step here.
    """
    for snapshot in history:
        for measure in ("loss", "learning_rate", "validation_loss"):
            if not math.isnan(getattr(snapshot, measure)):
                yield snapshot.step, "model", "", "", measure, getattr(snapshot, measure)
        for record in (*snapshot.records(), *snapshot.normalizations, *snapshot.losses):
            kind, function = _kind(record)
            for measure, value in (*record.measures().items(), *_flags(record)):
                if not math.isnan(value):
                    yield snapshot.step, kind, record.name, function, measure, float(value)


def write_csv(history: Sequence[Snapshot], path: str | pathlib.Path) -> pathlib.Path:
    """Write the table ``step, kind, layer, function_or_operation, measure, value``; floats in full precision.

    Args:
        history: The snapshots; with none, the file has its header only.
        path: The file; its folder is made if need be. A file that is there stays whole until the new one is.
    """
    with replaced(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows(history))
    return pathlib.Path(path)


@view("csv")
def _csv_of(diagnosis: Diagnosis, path: str | pathlib.Path) -> pathlib.Path:
    return write_csv([snapshot.matching(diagnosis.layers) for snapshot in diagnosis.history], path)


def _kind(record: StepRecord) -> tuple[str, str]:
    if isinstance(record, ActivationRecord):
        return "activation", record.function
    if isinstance(record, WeightedRecord):
        return "weighted", record.operation
    if isinstance(record, LossRecord):
        return "loss", record.function
    return ("normalization", "batch_norm") if isinstance(record, NormalizationRecord) else ("parameter", "")


def _flags(record: Any) -> list[tuple[str, float]]:
    flags = {f.name: f.default for f in dataclasses.fields(record) if f.type == "bool" and f.name not in _NO_FLAGS}
    return [(name, float(not usual)) for name, usual in flags.items() if getattr(record, name) != usual]
