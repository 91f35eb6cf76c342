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
_FEW = 1024  # values of float32 are squared and added up without float64
_SMALL, _LARGE = 1e-12, 1e18  # between them float32 holds the squares of all that counts in a norm
_fields: dict[Any, tuple[str, ...]] = {}
S = TypeVar("S", bound="Sums")


@dataclass(frozen=True)
class Sums:
    """A frozen dataclass whose fields add up: numbers, arrays, other Sums, or None where a measure does not apply."""

    def merge(self: S, other: S) -> S:
        """The sums of both sets of patterns together."""
        return type(self)(*map(_merge, _values(self), _values(other)))

    def arrays(self) -> list[Any]:
        """Every array, in the order of the fields."""
        found: list[Any] = []
        for value in _values(self):
            if isinstance(value, _ARRAYS):
                found.append(value)
            elif isinstance(value, Sums):
                found += value.arrays()
        return found

    def with_arrays(self: S, arrays: Iterator[Any]) -> S:
        """The same record with its arrays replaced by the next ones of an iterator."""
        made = object.__new__(type(self))  # as frozen dataclasses make themselves, a call for every field less
        fields = vars(made)
        for name, value in zip(_names(type(self)), _values(self), strict=True):
            if isinstance(value, _ARRAYS):
                value = next(arrays)
            elif isinstance(value, Sums):
                value = value.with_arrays(arrays)
            fields[name] = value
        return made


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
        norm = _precise_norm(x) if precise and x.device.type != "mps" else torch.linalg.vector_norm(x)
        return cls(x.numel(), norm.square())

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
        except Exception:  # one without values must not spoil the others
            copied = [_alone(array) if i in indices else copied[i] for i, array in enumerate(arrays)]
            continue
        for index, piece in zip(indices, _pieces(packed, [arrays[i].shape for i in indices]), strict=True):
            copied[index] = piece
    return copied


def on_host(x: Tensor) -> bool:
    """Whether values may be looked at at once, as nothing has to be copied for it."""
    return type(x) is Tensor and x.device.type == "cpu"


def _precise_norm(x: Tensor) -> Tensor:
    """In float64. On the CPU that makes a copy of what it reads, which few values need."""
    if on_host(x) and x.dtype == torch.float32 and x.numel() > _FEW:
        rows = x.reshape(-1, _FEW) if x.numel() % _FEW == 0 else x.reshape(len(x), -1)
        norm = torch.linalg.vector_norm(torch.linalg.vector_norm(rows, dim=1), dtype=torch.float64)
        if _SMALL < float(norm) < _LARGE:
            return norm
    return torch.linalg.vector_norm(x, dtype=torch.float64)


def sizes(x: Tensor) -> Tensor:
    """The sum of the absolute values of each row."""
    # The kernel for the CPU is several times slower than its parts; elsewhere one launch is better than two.
    return x.abs().sum(1) if on_host(x) else torch.linalg.vector_norm(x, 1, dim=1)


def _alone(array: Tensor) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(array.detach().cpu().numpy())
    except Exception:
        return np.full(tuple(array.shape), math.nan)


def _names(kind: Any) -> tuple[str, ...]:
    if kind not in _fields:
        _fields[kind] = tuple(field.name for field in dataclasses.fields(kind))
    return _fields[kind]


def _values(sums: Sums) -> list[Any]:
    """Of the fields, in their order."""
    own = vars(sums)
    return [own[name] for name in _names(type(sums))]


def _merge(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    return one.merge(other) if isinstance(one, Sums) else one + other


def _pieces(packed: np.ndarray[Any, Any], shapes: list[torch.Size]) -> Iterator[np.ndarray[Any, Any]]:
    start = 0
    for shape in shapes:
        end = start + shape.numel()
        piece = packed[start:end]
        yield piece if len(shape) == 1 else piece.reshape(shape)
        start = end
