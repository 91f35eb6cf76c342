"""Histories as two tensors, for a checkpoint: each record once, what does not change over the steps once a layer."""

from __future__ import annotations

import dataclasses
import itertools
import json
import operator
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lightning_tricks.probes.columns import ColumnReader, ColumnWriter, Description
from lightning_tricks.probes.records.record import StepRecord
from lightning_tricks.probes.snapshot import KINDS, Snapshot

VERSION = 2  # of this layout; version 1 was the snapshots' to_dict()


def pack(histories: Sequence[Sequence[Snapshot]]) -> dict[str, Any]:
    """Several histories without their sums, as a version and two tensors of bytes; what they share is there once.

    Measures have the precision of float32, unless they leave its range. Every field of every record is written, by its
    name: whoever adds one has nothing to do here.

    >>> packed = pack([[Snapshot(0, loss=2.5), Snapshot(1, loss=1.5)]])
    >>> [[snapshot.loss for snapshot in history] for history in unpack(packed)]
    [[2.5, 1.5]]
    """
    measures, exact = ColumnWriter(), ColumnWriter(exact=True)
    snapshots = list(itertools.chain.from_iterable(histories))
    header = {
        "histories": [len(history) for history in histories],
        "steps": _columns(exact, [snapshot.head() for snapshot in snapshots]),
        "records": {kind: _table(measures, [getattr(s, kind) for s in snapshots]) for kind in KINDS},
    }
    texts = (zlib.compress(json.dumps(header).encode(), 1), exact.data(), measures.data())
    return {"version": VERSION, **dict(zip(("header", "steps", "records"), map(_tensor, texts), strict=True))}


def unpack(packed: Mapping[str, Any]) -> list[list[Snapshot]]:
    """The histories that ``pack`` was given; fields and kinds of records that are unknown here are left out.

    Raises:
        ValueError: It is of a layout that this version does not know.
    """
    if packed["version"] != VERSION:
        raise ValueError(f"its layout has the version {packed['version']!r}, known here is {VERSION}")
    header = json.loads(zlib.decompress(_bytes(packed["header"])))
    heads = _rows(ColumnReader(_bytes(packed["steps"])), header["steps"])
    reader = ColumnReader(_bytes(packed["records"]))
    kinds = {kind: _records(reader, table, KINDS[kind]) for kind, table in header["records"].items() if kind in KINDS}
    found: list[Snapshot] = []
    for index, head in enumerate(heads):
        records: dict[str, Any] = {kind: of_steps[index] for kind, of_steps in kinds.items()}
        found.append(dataclasses.replace(Snapshot.from_dict(head), **records))
    waiting = iter(found)
    return [list(itertools.islice(waiting, count)) for count in header["histories"]]


def _columns(writer: ColumnWriter, rows: list[dict[str, Any]]) -> dict[str, Description]:
    names = dict.fromkeys(itertools.chain.from_iterable(rows))
    return {name: writer.column([row.get(name) for row in rows]) for name in names}


def _rows(reader: ColumnReader, columns: Mapping[str, Description]) -> list[dict[str, Any]]:
    values = [reader.column(column) for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def _table(writer: ColumnWriter, of_steps: Sequence[tuple[StepRecord, ...]]) -> dict[str, Any]:
    """All records of a kind, each once, and which of them belong to a step, as runs of rows."""
    rows: list[StepRecord] = []
    place: dict[int, int] = {}
    runs: list[list[int]] = []
    for records in of_steps:
        keys = list(map(id, records))
        for key, record in zip(keys, records, strict=True):
            if key not in place:
                place[key] = len(rows)
                rows.append(record)
        runs.append(_runs([place[key] for key in keys]))
    names = list(dict.fromkeys(record.name for record in rows))
    number = {name: i for i, name in enumerate(names)}
    ids = np.array([number[record.name] for record in rows], np.int64)
    fields = [f.name for f in dataclasses.fields(rows[0]) if f.name not in ("name", "sums", "signal")] if rows else []
    values = zip(*map(operator.attrgetter(*fields, "name"), rows), strict=True) if rows else ()
    columns = {field: _by_name(writer, column, ids) for field, column in zip(fields, values, strict=False)}
    blocks = [ids[start:end].tolist() for start, end in _new_rows(runs)]
    return {"names": names, "blocks": writer.column([json.dumps(b) for b in blocks]), "runs": writer.column(runs),
            "columns": columns}  # fmt: skip


def _by_name(writer: ColumnWriter, values: Sequence[Any], ids: Any) -> dict[str, Any]:
    """A column of which those names stand once whose value is the same in every step."""
    first = np.unique(ids, return_index=True)[1]
    kinds = set(map(type, values))
    array: Any
    if kinds <= {int} or kinds == {bool}:
        array = np.array(values)
        changed = array != array[first][ids]
    elif kinds == {float}:
        array = np.array(values, np.float64)
        changed = (array != array[first][ids]) & ~(np.isnan(array) & np.isnan(array[first][ids]))
    else:
        chosen: dict[Any, int] = {}
        simple = kinds in ({str}, {tuple})
        array = np.array([chosen.setdefault(key, len(chosen)) for key in (values if simple else map(repr, values))])
        changed = array != array[first][ids]
    varies = np.bincount(ids, changed) > 0
    fixed = [values[i] for i in first[~varies]]
    of_rows = values if varies.all() else list(itertools.compress(values, varies[ids].tolist()))
    return {"varies": np.flatnonzero(varies).tolist(), "fixed": writer.column(fixed), "rows": writer.column(of_rows)}


def _records(reader: ColumnReader, table: dict[str, Any], kind: type[StepRecord]) -> list[tuple[Any, ...]]:
    """The records of every step."""
    blocks = [json.loads(block) for block in reader.column(table["blocks"])]
    ids = list(itertools.chain.from_iterable(blocks))
    known = {f.name for f in dataclasses.fields(kind)}
    columns = {name: _values(reader, c, ids, len(table["names"])) for name, c in table["columns"].items()}
    fields = {"name": [table["names"][i] for i in ids], **{k: v for k, v in columns.items() if k in known}}
    rows = [kind.from_dict(dict(zip(fields, row, strict=True))) for row in zip(*fields.values(), strict=True)]
    pairs = [zip(runs[::2], runs[1::2], strict=True) for runs in reader.column(table["runs"])]
    return [tuple(itertools.chain.from_iterable(rows[start:end] for start, end in each)) for each in pairs]


def _values(reader: ColumnReader, column: dict[str, Any], ids: list[int], names: int) -> list[Any]:
    of_rows, fixed, varies = (
        iter(reader.column(column["rows"])),
        iter(reader.column(column["fixed"])),
        set(column["varies"]),
    )
    by_name = [None if i in varies else next(fixed) for i in range(names)]
    return [next(of_rows) if i in varies else by_name[i] for i in ids]


def _runs(rows: list[int]) -> list[int]:
    """Numbers as beginnings and ends of what is consecutive in them.

    >>> _runs([4, 5, 6, 9])
    [4, 7, 9, 10]
    """
    found: list[int] = []
    if rows and rows[-1] - rows[0] == len(rows) - 1 and rows == list(range(rows[0], rows[0] + len(rows))):
        return [rows[0], rows[0] + len(rows)]
    for row in rows:
        if found and found[-1] == row:
            found[-1] += 1
        else:
            found += [row, row + 1]
    return found


def _new_rows(runs: Iterable[list[int]]) -> Iterable[tuple[int, int]]:
    """The rows that each step was the first to have."""
    last = 0
    for of_step in runs:
        end = max(of_step[1::2], default=0)
        if end > last:
            yield last, end
            last = end


def _tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.zeros(0, dtype=torch.uint8)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.cpu().numpy().tobytes()
