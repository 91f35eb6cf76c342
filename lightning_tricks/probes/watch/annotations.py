"""Remarks about tensors that live no longer than the tensors do."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor

_NOTHING: tuple[weakref.ref[Tensor] | None, int, Any] = (None, 0, None)


class Notes:
    """A mapping from tensors, by identity, that keeps none of them alive and forgets what has been overwritten."""

    def __init__(self) -> None:
        self._notes: dict[int, tuple[weakref.ref[Tensor] | None, int, Any]] = {}

    def write(self, tensor: Tensor, note: Any) -> None:
        self._notes[id(tensor)] = (weakref.ref(tensor), _version(tensor), note)

    def read(self, tensor: Any) -> Any:
        """The note about a tensor, or None.

        An identity that a dead tensor left to a new one does not count, nor does a tensor changed in place since.
        """
        reference, version, note = self._notes.get(id(tensor), _NOTHING)
        return note if reference is not None and reference() is tensor and version == _version(tensor) else None

    def clear(self) -> None:
        self._notes.clear()


def _version(tensor: Any) -> int:
    return 0 if tensor.is_inference() else tensor._version
