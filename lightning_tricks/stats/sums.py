"""The base of every mergeable record: merge two, list the arrays, put other arrays in their place."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

_ARRAYS = (Tensor, np.ndarray, np.generic)  # the sum of two arrays of no dimension is a NumPy scalar
_fields: dict[Any, tuple[str, ...]] = {}
S = TypeVar("S", bound="Sums")


@dataclasses.dataclass(frozen=True)
class Sums:
    """A frozen dataclass whose fields add up: numbers, arrays, other Sums, or None where a measure does not apply."""

    def merge(self: S, other: S) -> S:
        """The sums of both sets of patterns together."""
        return type(self)(*[_merge(getattr(self, name), getattr(other, name)) for name in _names(type(self))])

    def arrays(self) -> list[Any]:
        """Every array, in the order of the fields."""
        found: list[Any] = []
        for name in _names(type(self)):
            value = getattr(self, name)
            if isinstance(value, Sums):
                found += value.arrays()
            elif isinstance(value, _ARRAYS):
                found.append(value)
        return found

    def with_arrays(self: S, arrays: Iterator[Any]) -> S:
        """The same record with its arrays replaced by the next ones of an iterator."""
        replaced: list[Any] = []
        for name in _names(type(self)):
            value = getattr(self, name)
            if isinstance(value, Sums):
                value = value.with_arrays(arrays)
            elif isinstance(value, _ARRAYS):
                value = next(arrays)
            replaced.append(value)
        return type(self)(*replaced)


def _names(kind: Any) -> tuple[str, ...]:
    if kind not in _fields:
        _fields[kind] = tuple(field.name for field in dataclasses.fields(kind))
    return _fields[kind]


def _merge(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    return one.merge(other) if isinstance(one, Sums) else one + other
