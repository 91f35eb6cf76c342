"""Which entry of a layer's output each entry of a tensor is, where views and permutations made the tensor of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

_VIEWS = frozenset(["view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "view_as"])
_PERMUTATIONS = frozenset(["permute", "transpose", "movedim", "swapaxes"])
_OTHER_PLACES = frozenset(("__getitem__",))  # of the same shape, and still other entries
_MOST_ENTRIES = 256  # along the axis that is asked for: neighbours tell where it leads


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in the output of a weighted operation: known by shapes alone, also where it was copied.

    Args:
        layer: The name of the weighted record.
        shape: Of its output.
        axis: The dimension of its units, negative.
        steps: What was done since, in order: the shape before it, and the dimensions that a permutation put in order;
            None for a view, which keeps the order of the entries.
    """

    layer: str
    shape: tuple[int, ...]
    axis: int
    steps: tuple[tuple[tuple[int, ...], tuple[int, ...] | None], ...] = ()

    def after(self, function: str, x: Tensor, output: Tensor) -> Layout | None:
        """That of what a function made of a tensor ``x`` of this layout; None where it cannot be told."""
        if function in _VIEWS and output.numel() == x.numel():
            return dataclasses.replace(self, steps=(*self.steps, (tuple(x.shape), None)))
        if function in _PERMUTATIONS:
            dims = _permutation(x, output)
            return None if dims is None else dataclasses.replace(self, steps=(*self.steps, (tuple(x.shape), dims)))
        return self if output.shape == x.shape and function not in _OTHER_PLACES else None

    def of_classes(self, x: Tensor) -> dict[str, Any]:
        """What a loss's record tells of an input with its classes in dimension 1; nothing where it is unknown."""
        positions = self.positions(x, 1) if x.dim() > 1 else 0
        known = {"weighted": self.layer, "layer_shape": self.shape, "unit_axis": self.axis, "positions": positions}
        return known if positions else {}

    def positions(self, x: Tensor, axis: int) -> int:
        """From how many positions of the output the entries along one axis of ``x`` come, at one place in ``x``.

        1 where they are the units at one position. 0 where nobody can tell: the axis has another length than there
        are units, or is as a whole another axis of the output, which may be meant so.
        """
        units, shape = self.axis % len(self.shape), tuple(x.shape)
        count = shape[axis]
        if count < 2 or self.shape[units] != count:
            return 0
        index = self._sources(shape, axis, min(count, _MOST_ENTRIES))
        others = np.delete(index, units, 0)
        positions = max(len(np.unique(others[:, place], axis=1).T) for place in range(index.shape[1]))
        return 0 if positions > 1 and self._other_axis(index, units, len(shape), count) else positions

    def _sources(self, shape: tuple[int, ...], axis: int, count: int) -> Any:
        """Of the first, a middle and the last place in a tensor, the entries along the axis: [dimension, place, k]."""
        index = np.stack([np.repeat([[0], [size // 2], [size - 1]], count, 1) for size in shape])
        index[axis] = np.arange(count)
        for before, dims in reversed(self.steps):
            if dims is None:
                index = np.stack(np.unravel_index(np.ravel_multi_index(tuple(index), shape), before))
            else:
                index = index[np.argsort(dims)]
            shape = before
        return index

    def _other_axis(self, index: Any, units: int, dimensions: int, count: int) -> bool:
        """Whether the entries run along one other axis as a whole, and it was not made by merging the units into it."""
        moves = [axis for axis in range(len(index)) if (index[axis] != index[axis][:, :1]).any()]
        if len(moves) != 1 or moves[0] == units or self.shape[moves[0]] != count:
            return False
        return dimensions >= len(self.shape) or any(dims is not None for _, dims in self.steps)


def _permutation(x: Tensor, output: Tensor) -> tuple[int, ...] | None:
    """Which dimension of ``x`` each one of a permuted view is; None where sizes and strides do not tell."""
    known = list(zip(x.shape, x.stride(), strict=True))
    wanted = list(zip(output.shape, output.stride(), strict=True))
    if len(set(known)) != len(known) or sorted(known) != sorted(wanted):
        return None
    return tuple(known.index(each) for each in wanted)
