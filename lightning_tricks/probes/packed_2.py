"""Histories in the layout of version 2, which is read and no longer written: one table a kind for all steps."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from typing import Any

from lightning_tricks.probes.columns import ColumnReader
from lightning_tricks.probes.records.record import StepRecord
from lightning_tricks.probes.snapshot import KINDS


def records_of(header: Mapping[str, Any], data: bytes) -> dict[str, list[tuple[Any, ...]]]:
    """The records of every step, by kind."""
    reader = ColumnReader(data)
    return {kind: _records(reader, table, KINDS[kind]) for kind, table in header["records"].items() if kind in KINDS}


def _records(reader: ColumnReader, table: dict[str, Any], kind: type[StepRecord]) -> list[tuple[Any, ...]]:
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
