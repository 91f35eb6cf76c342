"""Remarks about tensors that live no longer than the tensors do."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor


class Notes:
    """A mapping from tensors, by identity, that keeps none of them alive."""

    def __init__(self) -> None:
        self._notes: dict[int, tuple[weakref.ref[Tensor], Any]] = {}

    def write(self, tensor: Tensor, note: Any) -> None:
        self._notes[id(tensor)] = (weakref.ref(tensor), note)

    def read(self, tensor: Any) -> Any:
        """The note about a tensor, or None; an identity that a dead tensor left to a new one does not count."""
        entry = self._notes.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def clear(self) -> None:
        self._notes.clear()
