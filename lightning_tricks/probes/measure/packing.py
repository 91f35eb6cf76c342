"""All sums of a step in one tensor, copied to the host once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor


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
        packed = torch.cat([arrays[index].detach().reshape(-1) for index in indices]).cpu().numpy()
        for index, piece in zip(indices, _pieces(packed, [arrays[i].shape for i in indices]), strict=True):
            copied[index] = piece
    return copied


def _pieces(packed: np.ndarray[Any, Any], shapes: list[torch.Size]) -> Iterator[np.ndarray[Any, Any]]:
    start = 0
    for shape in shapes:
        end = start + shape.numel()
        yield packed[start:end].reshape(shape)
        start = end
