"""Annotations of tensors that live no longer than the tensors do."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor

_NOTHING: tuple[weakref.ref[Tensor] | None, int, Any] = (None, 0, None)


class TensorAnnotations:
    """A mapping from tensors, by identity, that keeps none of them alive and forgets what has been overwritten."""

    def __init__(self) -> None:
        self._annotations: dict[int, tuple[weakref.ref[Tensor] | None, int, Any]] = {}

    def write(self, tensor: Tensor, annotation: Any) -> None:
        self._annotations[id(tensor)] = (weakref.ref(tensor), _version(tensor), annotation)

    def read(self, tensor: Any) -> Any:
        """The annotation of a tensor, or None.

        An identity that a dead tensor left to a new one does not count, nor does a tensor changed in place since.
        """
        reference, version, annotation = self._annotations.get(id(tensor), _NOTHING)
        return annotation if reference is not None and reference() is tensor and version == _version(tensor) else None

    def clear(self) -> None:
        self._annotations.clear()


def _version(tensor: Any) -> int:
    return 0 if tensor.is_inference() else tensor._version
