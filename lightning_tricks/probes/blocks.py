"""The records of one step as bytes, made once for all that are saved: what is no more as it was when first met."""

from __future__ import annotations

import dataclasses
import itertools
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lightning_tricks.probes.columns import ColumnReader, ColumnWriter, Description, as_stored, equal, fits
from lightning_tricks.probes.records.record import StepRecord
from lightning_tricks.probes.snapshot import KINDS

_UNPACKED = ("name", "sums", "signal")
_names_of_fields: dict[type, tuple[str, ...]] = {}
Records = dict[str, list[Any]]  # by kind


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """The records of one step; ``header``: JSON that says how ``data`` is to be read."""

    header: str
    data: bytes


class _First(NamedTuple):
    """What some records were when they were met first; ``arrays``: the columns that are numbers."""

    ids: Sequence[int]
    columns: dict[str, Any]
    arrays: dict[str, Any]


class Reference:
    """Every record as it was when one of its name was met first: of a block it says what does not change over steps.

    >>> from lightning_tricks.probes.records.activations import ActivationRecord
    >>> reference = Reference()
    >>> first, second = (ActivationRecord("0", "relu", 1, False, 8, 32, std=std) for std in (1.0, 2.0))
    >>> blocks = [reference.block({"activations": [record]}) for record in (first, second)]
    >>> [len(block.data) for block in blocks]
    [0, 2]
    >>> [reference.records(block)["activations"][0].std for block in blocks]
    [1.0, 2.0]
    """

    def __init__(self) -> None:
        self._met: dict[str, dict[str, StepRecord]] = {kind: {} for kind in KINDS}
        self._places: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
        self._latest: dict[str, _First] = {}  # of the latest block

    @np.errstate(all="ignore")
    def block(self, records: Records) -> Block:
        """Pack the records of a step."""
        writer = ColumnWriter()
        header = {kind: self._write(writer, kind, rows) for kind, rows in records.items() if rows}
        return Block(json.dumps(header), writer.data())

    def records(self, block: Block) -> Records:
        """The records of a block; kinds and fields that are unknown here are left out."""
        reader, header = ColumnReader(block.data), json.loads(block.header)
        return {kind: self._read(reader, kind, table) for kind, table in header.items() if kind in KINDS}

    def write(self) -> Block:
        """The reference itself."""
        writer, header = ColumnWriter(), {}
        for kind, met in self._met.items():
            columns = _columns_of(list(met.values())) if met else {}
            described = {field: writer.column(values) for field, values in columns.items()}
            header[kind] = {"names": list(met), "columns": described}
        return Block(json.dumps(header), writer.data())

    @classmethod
    def read(cls, block: Block) -> tuple[Reference, bool]:
        """What ``write`` gave, and whether all of it is known here: else no further block may be made with it."""
        made, whole, reader = cls(), True, ColumnReader(block.data)
        for kind, table in json.loads(block.header).items():
            if kind not in KINDS:
                whole = False
                continue
            columns = {"name": table["names"]}
            columns |= {field: reader.column(described) for field, described in table["columns"].items()}
            rows = map(KINDS[kind].from_dict, _dicts(columns))
            made._met[kind] = dict(zip(table["names"], rows, strict=True))
            made._places[kind] = {name: place for place, name in enumerate(table["names"])}
            whole = whole and (not table["names"] or set(_fields(KINDS[kind])) == set(table["columns"]))
        return made, whole

    # --- one kind --------------------------------------------------------------------------------------------------

    def _write(self, writer: ColumnWriter, kind: str, rows: list[StepRecord]) -> dict[str, Any]:
        met, places = self._met[kind], self._places[kind]
        for row in rows:
            if row.name not in met:
                met[row.name] = row.light()
                places[row.name] = len(places)
        ids = [places[row.name] for row in rows]
        first = self._first(kind, ids)
        columns = _columns_of(rows)
        floats = [field for field, values in columns.items() if field in first.arrays and _all_floats(values)]
        others = {
            field: _difference(writer, values, first.columns[field])
            for field, values in columns.items()
            if field not in floats
        }
        changed: dict[str, Any] = {field: described for field, described in others.items() if described is not None}
        numbers = _numbers(writer, [columns[f] for f in floats], [first.arrays[f] for f in floats]) if floats else {}
        described = {"fields": floats, "numbers": numbers, "others": changed}
        if ids == list(range(len(ids))):
            return {"count": len(ids), **described}
        return {"ids": writer.column(ids), **described}

    def _read(self, reader: ColumnReader, kind: str, table: Mapping[str, Any]) -> list[Any]:
        ids = list(range(table["count"])) if "count" in table else reader.column(table["ids"])
        met = list(self._met[kind].values())
        first = self._first(kind, ids)
        columns: dict[str, Sequence[Any]] = {"name": [met[i].name for i in ids], **first.columns}
        known = set(_fields(KINDS[kind]))
        for field, described in table["others"].items():
            if field in known:
                changed = _bits(reader, described["at"], len(ids))
                new = iter(reader.column(described["values"]))
                pairs = zip(columns[field], changed.tolist(), strict=True)
                columns[field] = [next(new) if differs else old for old, differs in pairs]
        if table["numbers"]:
            nothing = np.full(len(ids), np.nan)  # of a field that this version does not know
            before = np.array([first.arrays.get(field, nothing) for field in table["fields"]])
            after = _with_numbers(reader, before, table["numbers"])
            columns |= {f: values for f, values in zip(table["fields"], after.tolist(), strict=True) if f in known}
        return [KINDS[kind].from_dict(row) for row in _dicts(columns)]

    def _first(self, kind: str, ids: Sequence[int]) -> _First:
        """The reference for these rows; that of the latest block is kept, as most blocks are like it."""
        known = self._latest.get(kind)
        if known is None or known.ids != ids:
            met = list(self._met[kind].values())
            columns = _columns_of([met[i] for i in ids])
            arrays = {f: as_stored(np.array(c, np.float64)) for f, c in columns.items() if _all_floats(c)}
            known = self._latest[kind] = _First(ids, columns, arrays)
        return known


def _numbers(writer: ColumnWriter, values: Sequence[Any], first: Sequence[Any]) -> dict[str, Any]:
    """Where the numbers of some columns are others than those they are compared with, and which."""
    stored = as_stored(np.array(values, np.float64))
    changed = ~equal(stored, np.array(first))
    new = stored[changed]
    far = ~fits(new)
    described = {"at": writer.column(np.packbits(changed).tolist()), "values": writer.floats(new[~far])}
    if far.any():
        described |= {"far_at": writer.column(np.packbits(far).tolist()), "far": writer.floats(new[far])}
    return described


def _with_numbers(reader: ColumnReader, first: Any, described: Mapping[str, Any]) -> Any:
    changed = _bits(reader, described["at"], first.size).reshape(first.shape)
    new = np.empty(int(changed.sum()))
    far = _bits(reader, described["far_at"], len(new)) if "far" in described else np.zeros(len(new), bool)
    new[~far] = reader.column(described["values"])
    if "far" in described:
        new[far] = reader.column(described["far"])
    first[changed] = new
    return first


def _difference(writer: ColumnWriter, values: Sequence[Any], first: Sequence[Any]) -> dict[str, Any] | None:
    """Where values of any kind are others than those they are compared with, and which; None where they nowhere are."""
    pairs = zip(values, first, strict=True)
    changed = [one != other or type(one) is not type(other) for one, other in pairs]
    if not any(changed):
        return None
    return {
        "at": writer.column(np.packbits(changed).tolist()),
        "values": writer.column(list(itertools.compress(values, changed))),
    }


def _bits(reader: ColumnReader, described: Description, count: int) -> Any:
    return np.unpackbits(np.array(reader.column(described), np.uint8), count=count).astype(bool)


def _all_floats(values: Sequence[Any]) -> bool:
    return set(map(type, values)) == {float}


def _dicts(columns: Mapping[str, Sequence[Any]]) -> Iterable[dict[str, Any]]:
    return (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _columns_of(rows: Sequence[StepRecord]) -> dict[str, Any]:
    kind = type(rows[0])
    return dict(zip(_fields(kind), zip(*map(operator.attrgetter(*_fields(kind)), rows), strict=True), strict=True))


def _fields(kind: type[StepRecord]) -> tuple[str, ...]:
    if kind not in _names_of_fields:
        names = tuple(f.name for f in dataclasses.fields(kind) if f.name not in _UNPACKED)
        _names_of_fields[kind] = names
    return _names_of_fields[kind]
