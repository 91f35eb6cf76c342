"""Columns of plain values as a few bytes: what all rows share once, numbers as arrays, words once each."""

from __future__ import annotations

import itertools
import json
import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Description = dict[str, Any]  # plain JSON that says where in the bytes a column lies, and how to read it
_HEXADECIMAL = re.compile("[0-9a-f]*")
_LONG = 8  # words of hexadecimal digits with more characters than this on average are written as bytes
_SMALLEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


class ColumnWriter:
    """Appends columns to one string of bytes.

    Args:
        exact: Whether every number keeps all of its digits; else those that float32 can hold have its precision.

    >>> writer = ColumnWriter()
    >>> described = writer.column([0.5, 1.5]), writer.column([(1, 2), ()]), writer.column(["a", "b", "a"])
    >>> reader = ColumnReader(writer.data())
    >>> [reader.column(each) for each in described]
    [[0.5, 1.5], [[1, 2], []], ['a', 'b', 'a']]
    """

    def __init__(self, *, exact: bool = False) -> None:
        self.exact = exact
        self._pieces: list[bytes] = []
        self._size = 0

    def data(self) -> bytes:
        return b"".join(self._pieces)

    def column(self, values: Sequence[Any]) -> Description:
        """Write values of any one kind: numbers, words, tuples of them, None, whatever JSON knows."""
        kinds = set(map(type, values))
        if kinds == {float}:
            return self.floats(values)
        if kinds == {float, type(None)} and not any(value != value for value in values):
            return {**self.floats([np.nan if value is None else value for value in values]), "none": True}
        if kinds == {int}:
            return self._integers(values)
        if kinds and kinds <= {tuple, list}:
            flat, lengths = list(itertools.chain.from_iterable(values)), [len(value) for value in values]
            return {"lists": self.column(flat), "lengths": self._integers(lengths)}
        if kinds == {str} and sum(map(len, values)) > _LONG * len(values):
            whole = "".join(values)
            if _HEXADECIMAL.fullmatch(whole) and not any(len(value) % 2 for value in values):
                lengths = [len(value) // 2 for value in values]
                return {"hex": self._bytes(zlib.compress(bytes.fromhex(whole), 1)), "lengths": self._integers(lengths)}
        chosen: dict[str, int] = {}
        codes = [chosen.setdefault(json.dumps(value), len(chosen)) for value in values]
        return {"choices": [json.loads(choice) for choice in chosen], "of": self._integers(codes)}

    def floats(self, values: Sequence[float] | Array) -> Description:
        """Write numbers."""
        array = np.array(values, np.float64)
        if not len(array) or equal(array, array[:1]).all():
            return {"same": array[:1].tolist(), "count": len(array)}
        with np.errstate(all="ignore"):
            short = array.astype(np.float32)
        short_enough = bool(equal(short.astype(np.float64), array).all() if self.exact else fits(array).all())
        return {"array": self._array(short if short_enough else array)}

    def _integers(self, values: Sequence[int]) -> Description:
        array = np.array(values, np.int64)
        if not len(array) or (array == array[0]).all():
            return {"same": array[:1].tolist(), "count": len(array)}
        kinds = (np.uint8, np.uint16, np.int32)
        kind: Any = next((kind for kind in kinds if (array == array.astype(kind)).all()), np.int64)
        return {"array": self._array(array.astype(kind))}

    def _array(self, array: Array) -> list[Any]:
        return [array.dtype.str, *self._bytes(np.ascontiguousarray(array).tobytes())]

    def _bytes(self, piece: bytes) -> list[int]:
        self._pieces.append(piece)
        self._size += len(piece)
        return [self._size - len(piece), self._size]


class ColumnReader:
    """Reads what a :class:`ColumnWriter` has written; lists are lists, whether they were tuples or not."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def column(self, description: Description) -> list[Any]:
        """The values of a column."""
        if "same" in description:
            values = description["same"] * description["count"]
        elif "array" in description:
            kind, start, end = description["array"]
            values = np.frombuffer(self._data[start:end], np.dtype(kind)).tolist()
        elif "choices" in description:
            return [description["choices"][code] for code in self.column(description["of"])]
        else:
            lengths = self.column(description["lengths"])
            ends = list(itertools.accumulate(lengths))
            if "hex" in description:
                first, last = description["hex"]
                whole = zlib.decompress(self._data[first:last])
                return [whole[end - n : end].hex() for end, n in zip(ends, lengths, strict=True)]
            flat = self.column(description["lists"])
            return [flat[end - n : end] for end, n in zip(ends, lengths, strict=True)]
        return [None if value != value else value for value in values] if "none" in description else values


def equal(one: Array, other: Array) -> Array:
    """Where two arrays have the same number, or both none."""
    return np.asarray((one == other) | (np.isnan(one) & np.isnan(other)))


def as_stored(array: Array) -> Array:
    """Numbers with the precision that they are written with."""
    with np.errstate(all="ignore"):
        short = array.astype(np.float32).astype(np.float64)
    exact = ~fits(array)
    return np.where(exact, array, short) if exact.any() else short


def fits(array: Array) -> Array:
    """Where numbers lie in the range of float32."""
    size = np.abs(array)
    return np.asarray(((size >= _SMALLEST) & (size <= _LARGEST)) | (size == 0) | ~np.isfinite(size))
