"""Histories as a few tensors, for a checkpoint: each record once, what does not change over the steps once a layer."""

from __future__ import annotations

import dataclasses
import itertools
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from lightning_tricks.probes import packed_2
from lightning_tricks.probes.blocks import Block, Records, Reference
from lightning_tricks.probes.columns import ColumnReader, ColumnWriter, Description
from lightning_tricks.probes.snapshot import KINDS, Snapshot

VERSION = 3  # of this layout; version 1 was the snapshots' to_dict()
_PLACE = "place"
Histories = Sequence[Sequence[Snapshot]]


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the records of a snapshot are packed: for each kind in which runs of the rows of a block."""

    reference: Reference
    block: Block
    runs: Mapping[str, list[int]]


def prepare(histories: Histories) -> Reference:
    """Pack those snapshots that are not packed yet, so that a later ``pack`` has little left to do."""
    places = (s.packing[_PLACE].reference for s in itertools.chain.from_iterable(histories) if _PLACE in s.packing)
    reference = next(places, None) or Reference()
    new: dict[int, list[Snapshot]] = {}
    packed: dict[int, list[Snapshot]] = {}
    for snapshot in itertools.chain.from_iterable(histories):
        place = snapshot.packing.get(_PLACE)
        is_new = place is None or place.reference is not reference
        (new if is_new else packed).setdefault(snapshot.step, []).append(snapshot)
    for step, same in new.items():
        others = packed.get(step, [])
        left = [snapshot for snapshot in same if not any(_take_over(snapshot, other) for other in others)]
        if left:
            _pack_step(reference, left)
    return reference


def pack(histories: Histories) -> dict[str, Any]:
    """Several histories without their sums, as a version and tensors of bytes; what they share is there once.

    Measures have the precision of float32, unless they leave its range. Every field of every record is written, by its
    name: whoever adds one has nothing to do here. A snapshot is packed once, however often it is saved.

    >>> packed = pack([[Snapshot(0, loss=2.5), Snapshot(1, loss=1.5)]])
    >>> [[snapshot.loss for snapshot in history] for history in unpack(packed)]
    [[2.5, 1.5]]
    """
    reference, exact = prepare(histories), ColumnWriter(exact=True)
    snapshots = list(itertools.chain.from_iterable(histories))
    places = [snapshot.packing[_PLACE] for snapshot in snapshots]
    number: dict[int, int] = {}
    blocks = [reference.write()]
    for place in places:
        if id(place.block) not in number:
            number[id(place.block)] = len(blocks)
            blocks.append(place.block)
    header = {
        "histories": [len(history) for history in histories],
        "steps": _columns(exact, list(map(_head, snapshots))),
        "sizes": [len(block.data) for block in blocks],
        "blocks": [number[id(place.block)] for place in places],
        "runs": [place.runs for place in places],
    }
    layouts = "\n".join(block.header for block in blocks)
    parts = {
        "header": zlib.compress(json.dumps(header).encode(), 1),
        "layouts": zlib.compress(layouts.encode(), 1),
        "steps": exact.data(),
        "records": b"".join(block.data for block in blocks),
    }
    return {"version": VERSION, **{name: _tensor(part) for name, part in parts.items()}}


def unpack(packed: Mapping[str, Any]) -> list[list[Snapshot]]:
    """The histories that ``pack`` was given; fields and kinds of records that are unknown here are left out.

    Raises:
        ValueError: It is of a layout that this version does not know.
    """
    if packed["version"] not in (2, VERSION):
        raise ValueError(f"its layout has the version {packed['version']!r}, known here are 2 and {VERSION}")
    header = json.loads(zlib.decompress(_bytes(packed["header"])))
    heads = [Snapshot.from_dict(row) for row in _rows(ColumnReader(_bytes(packed["steps"])), header["steps"])]
    if packed["version"] == 2:
        kinds: dict[str, Any] = packed_2.records_of(header, _bytes(packed["records"]))
        of_steps = (dict(zip(kinds, records, strict=True)) for records in zip(*kinds.values(), strict=True))
        found = [dataclasses.replace(head, **own) for head, own in zip(heads, of_steps, strict=True)]
    else:
        found = _with_records(heads, header, packed)
    waiting = iter(found)
    return [list(itertools.islice(waiting, count)) for count in header["histories"]]


def _pack_step(reference: Reference, same: Sequence[Snapshot]) -> None:
    """Pack what one step showed, to several monitors perhaps."""
    records: Records = {}
    all_runs: list[dict[str, list[int]]] = [{} for _ in same]
    for kind in KINDS:
        rows: list[Any] = []
        place: dict[int, int] = {}
        for runs, snapshot in zip(all_runs, same, strict=True):
            own = getattr(snapshot, kind)
            for record in own:
                if id(record) not in place:
                    place[id(record)] = len(rows)
                    rows.append(record)
            if own:
                runs[kind] = _runs([place[id(record)] for record in own])
        records[kind] = rows
    block = reference.block(records)
    for runs, snapshot in zip(all_runs, same, strict=True):
        snapshot.packing[_PLACE] = _Place(reference, block, runs)


def _take_over(snapshot: Snapshot, other: Snapshot) -> bool:
    """Whether another one that is packed has all of a snapshot's records; then it is packed with that."""
    of_other, all_runs = other.packing[_PLACE], dict[str, list[int]]()
    for kind in KINDS:
        rows = itertools.chain.from_iterable(itertools.starmap(range, _pairs(of_other.runs.get(kind, []))))
        places = dict(zip(map(id, getattr(other, kind)), rows, strict=True))
        found = [places.get(id(record), -1) for record in getattr(snapshot, kind)]
        if -1 in found:
            return False
        if found:
            all_runs[kind] = _runs(found)
    snapshot.packing[_PLACE] = dataclasses.replace(of_other, runs=all_runs)
    return True


def _with_records(heads: list[Snapshot], header: dict[str, Any], packed: Mapping[str, Any]) -> list[Snapshot]:
    """The snapshots; where all of it is known here, what is saved next takes the packed records over as they are."""
    data, layouts = _bytes(packed["records"]), zlib.decompress(_bytes(packed["layouts"])).decode().split("\n")
    ends = list(itertools.accumulate(header["sizes"]))
    pieces = (data[end - size : end] for end, size in zip(ends, header["sizes"], strict=True))
    if ends[-1] != len(data):
        raise ValueError(f"its records have {len(data)} bytes, not {ends[-1]}")
    first, *blocks = itertools.starmap(Block, zip(layouts, pieces, strict=True))
    reference, whole = Reference.read(first)
    records = [reference.records(block) for block in blocks]
    found = []
    for head, index, all_runs in zip(heads, header["blocks"], header["runs"], strict=True):
        own: dict[str, Any] = {
            kind: _of_runs(records[index - 1][kind], runs) for kind, runs in all_runs.items() if kind in KINDS
        }
        found.append(dataclasses.replace(head, **own))
        if whole:
            found[-1].packing[_PLACE] = _Place(reference, blocks[index - 1], all_runs)
    return found


def _head(snapshot: Snapshot) -> dict[str, Any]:
    if _head not in snapshot.remembered:
        snapshot.remembered[_head] = snapshot.head()
    found: dict[str, Any] = snapshot.remembered[_head]
    return found


def _columns(writer: ColumnWriter, rows: list[dict[str, Any]]) -> dict[str, Description]:
    names = dict.fromkeys(itertools.chain.from_iterable(rows))
    return {name: writer.column([row.get(name) for row in rows]) for name in names}


def _rows(reader: ColumnReader, columns: Mapping[str, Description]) -> list[dict[str, Any]]:
    values = [reader.column(column) for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def _runs(rows: Iterable[int]) -> list[int]:
    """Numbers as beginnings and ends of what is consecutive in them.

    >>> _runs([4, 5, 6, 9])
    [4, 7, 9, 10]
    """
    found: list[int] = []
    for row in rows:
        if found and found[-1] == row:
            found[-1] += 1
        else:
            found += [row, row + 1]
    return found


def _of_runs(rows: Sequence[Any], runs: Sequence[int]) -> tuple[Any, ...]:
    return tuple(itertools.chain.from_iterable(rows[start:end] for start, end in _pairs(runs)))


def _pairs(runs: Sequence[int]) -> Iterable[tuple[int, int]]:
    return zip(runs[::2], runs[1::2], strict=True)


def _tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.zeros(0, dtype=torch.uint8)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.cpu().numpy().tobytes()
