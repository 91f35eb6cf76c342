"""Where a history comes from: an object that has one, a table, a stored diagnosis, a checkpoint."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import pathlib
import pickle
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from lightning_tricks.callbacks.monitoring.checkpoints import KEY
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.packed import unpack
from lightning_tricks.probes.records.record import StepRecord
from lightning_tricks.probes.snapshot import KINDS
from lightning_tricks.report.files import missing
from lightning_tricks.report.history import COLUMNS

_KINDS = {"activation": "activations", "weighted": "weighted", "parameter": "parameters", "loss": "losses",
          "normalization": "normalizations"}  # fmt: skip
_SUFFIXES = (".csv", ".json", ".ckpt", ".pt", ".pth")
_CALLED = {"activations": "function", "weighted": "operation", "losses": "function"}


def history_of(source: Any) -> list[Snapshot]:
    """The snapshots of a run, the oldest first.

    Args:
        source: A list of snapshots; what has one as its ``history`` (a diagnosis, a doctor, a monitor); a checkpoint
            that was loaded; or the path of a table that ``to_csv`` wrote, of ``to_dict`` as JSON, or of a checkpoint
            with a doctor's state.

    Raises:
        TypeError: It is nothing of these.
        ValueError: It holds no history, or one that cannot be read.
        OSError: The file cannot be read.

    >>> [snapshot.step for snapshot in history_of([Snapshot(0), Snapshot(1)])]
    [0, 1]
    """
    if isinstance(source, (str, pathlib.Path)):
        return _in_file(pathlib.Path(source))
    if isinstance(source, Mapping):
        return _in_mapping(source, "this mapping")
    found = getattr(source, "history", source)
    if not isinstance(found, Sequence) or not all(isinstance(each, Snapshot) for each in found):
        raise TypeError(
            "a history is a list of snapshots, a diagnosis, a doctor, or the path of a table or a checkpoint, got "
            f"{type(source).__name__}"
        )
    if not found:
        raise ValueError("this history holds no snapshot: nothing was looked at")
    return list(found)


def _in_file(path: pathlib.Path) -> list[Snapshot]:
    if not path.is_file():
        raise FileNotFoundError(missing(path, _SUFFIXES))
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return read_csv(file, str(path))
    if path.suffix == ".json":
        try:
            return _in_mapping(json.loads(path.read_text(encoding="utf-8")), str(path))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is no JSON: {error}") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is no checkpoint, or one with more than tensors and plain data in it. If you trust where it is "
            "from, load it yourself: torch.load(path, weights_only=False), and give what comes"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is neither a table (.csv), nor JSON (.json), nor a checkpoint: {error}") from error
    return _in_mapping(state, str(path))


def _in_mapping(state: Any, called: str) -> list[Snapshot]:
    """Of a checkpoint of a Trainer, of a doctor's ``state_dict`` in a mapping or alone, of a diagnosis as JSON."""
    inner = list(state.values()) if isinstance(state, Mapping) else []
    callbacks = state.get("callbacks", {}) if isinstance(state, Mapping) else {}
    places = [state, *inner, *(callbacks.values() if isinstance(callbacks, Mapping) else ())]
    histories: list[list[Snapshot]] = []
    for place in places:
        if isinstance(place, Mapping) and isinstance(place.get("histories"), Mapping):
            histories += unpack(place["histories"])
        elif isinstance(place, Mapping) and isinstance(place.get("history"), list):
            histories.append([Snapshot.from_dict(each) for each in place["history"]])
    longest = max(histories, key=len, default=[])
    if not longest:
        raise ValueError(
            f"{called} holds no history: a checkpoint has one ({KEY!r}) where a doctor or a monitor was among the "
            "callbacks, JSON where it is diagnosis.to_dict()"
        )
    return longest


def read_csv(lines: Iterable[str], called: str = "this table") -> list[Snapshot]:
    """The snapshots of a table that ``to_csv`` wrote: the measures and flags of their records, in their order.

    What is no number has no row: shapes, which weight an operation uses, what happened around the forward pass. So the
    rules cannot judge it.

    Raises:
        ValueError: It is another table.
    """
    rows = csv.reader(lines)
    if tuple(next(rows, ())) != COLUMNS:
        raise ValueError(f"{called} is no table of a history: its columns must be {', '.join(COLUMNS)}")
    steps: dict[int, dict[tuple[str, str, str], dict[str, float]]] = {}
    for number, row in enumerate(rows, 2):
        try:
            step, kind, layer, function, measure, value = row
            steps.setdefault(int(step), {}).setdefault((kind, layer, function), {})[measure] = float(value)
        except ValueError as error:
            raise ValueError(f"{called}, line {number}, cannot be read: {error}") from error
    if not steps:
        raise ValueError(f"{called} holds no look: nothing was looked at")
    return [_snapshot(step, records) for step, records in sorted(steps.items())]


def _snapshot(step: int, rows: Mapping[tuple[str, str, str], Mapping[str, float]]) -> Snapshot:
    found: dict[str, list[StepRecord]] = {kind: [] for kind in KINDS}
    whole: Mapping[str, float] = {}
    for order, ((kind, layer, function), values) in enumerate(rows.items()):
        if kind == "model":
            whole = values
        elif kind in _KINDS:
            name = _KINDS[kind]
            found[name].append(_record(KINDS[name], layer, order, {_CALLED.get(name, ""): function}, values))
    fields: dict[str, Any] = {kind: tuple(of_kind) for kind, of_kind in found.items()}
    fields |= {name: whole.get(name, math.nan) for name in _WHOLE}
    return Snapshot(step, partial=True, **fields)


_WHOLE = ("loss", "learning_rate", "validation_loss")


def _record(
    kind: type[StepRecord], name: str, order: int, names: Mapping[str, str], values: Mapping[str, float]
) -> StepRecord:
    kinds = {field.name: field.type for field in dataclasses.fields(kind)}
    known = {key: bool(value) if kinds.get(key) == "bool" else value for key, value in values.items()}
    return kind.from_dict({**names, **known, "name": name, "order": order})
