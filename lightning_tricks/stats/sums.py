"""What adds up: the base of every mergeable record, squares, and the one copy of all arrays to the host."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

_ARRAYS = (Tensor, np.ndarray, np.generic)  # the sum of two arrays of no dimension is a NumPy scalar
_fields: dict[Any, tuple[str, ...]] = {}
S = TypeVar("S", bound="Sums")


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class SquareSums(Sums):
    """Sum of squares and the number of elements it runs over.

    >>> SquareSums.of(torch.tensor([3.0, 4.0])).merge(SquareSums.of(torch.zeros(2))).rms
    2.5
    """

    count: int
    square: Any

    @classmethod
    def of(cls, x: Tensor, *, precise: bool = False) -> SquareSums:
        """Sums of one tensor; ``precise``: also where its squares leave float32, under 1e-19 and over 1e19."""
        dtype = torch.float64 if precise and x.device.type != "mps" else None
        return cls(x.numel(), torch.linalg.vector_norm(x, dtype=dtype).square())

    @property
    def rms(self) -> float:
        """Root mean square over all elements; NaN where there is none."""
        return math.sqrt(float(self.square) / self.count) if self.count else math.nan


def to_host(arrays: Iterable[Tensor]) -> list[np.ndarray[Any, Any]]:
    """Copies arrays to the host in one transfer per device, each with its own shape.

    >>> to_host([torch.tensor([1.0, 2.0]), torch.tensor(3.0)])
    [array([1., 2.], dtype=float32), array(3., dtype=float32)]
    """
    arrays = list(arrays)
    by_device: dict[torch.device, list[int]] = {}
    for index, array in enumerate(arrays):
        by_device.setdefault(array.device, []).append(index)
    copied: list[Any] = [None] * len(arrays)
    for indices in by_device.values():
        try:
            with torch.no_grad():
                flat = [array if array.dim() < 2 else array.reshape(-1) for array in map(arrays.__getitem__, indices)]
                packed = torch.hstack(flat).cpu().numpy()
        except (RuntimeError, TypeError):  # one without values must not spoil the others
            copied = [_alone(array) if i in indices else copied[i] for i, array in enumerate(arrays)]
            continue
        for index, piece in zip(indices, _pieces(packed, [arrays[i].shape for i in indices]), strict=True):
            copied[index] = piece
    return copied


def _alone(array: Tensor) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(array.detach().cpu().numpy())
    except (RuntimeError, TypeError):
        return np.full(tuple(array.shape), math.nan)


def _names(kind: Any) -> tuple[str, ...]:
    if kind not in _fields:
        _fields[kind] = tuple(field.name for field in dataclasses.fields(kind))
    return _fields[kind]


def _merge(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    return one.merge(other) if isinstance(one, Sums) else one + other


def _pieces(packed: np.ndarray[Any, Any], shapes: list[torch.Size]) -> Iterator[np.ndarray[Any, Any]]:
    start = 0
    for shape in shapes:
        end = start + shape.numel()
        yield packed[start:end].reshape(shape)
        start = end
