"""What a loss was told to wish for: values, class numbers, rows of classes, tokens that stand later in the input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_tricks.probes.measure.loss_and_norm_sums import ValueSummary
from lightning_tricks.probes.measure.tallies import Derived, WeightedTally, origin_of
from lightning_tricks.stats import Sums, sample

_ROWS, _COLUMNS, _FARTHEST = 8, 64, 8  # sequences and positions that are compared, and positions between the two
_MIN_PAIRS, _FITS = 16, 0.9
_CUTS = ("chunk", "split", "tensor_split", "unbind", "narrow", "flatten", "movedim", "swapaxes")


@dataclass(frozen=True)
class TokenSums(Sums):
    """The first tokens of the first sequences that went into the network, and those that a loss wants for them.

    Args:
        inputs: Of all embeddings that were looked up, ``[embeddings, sequences, positions]``.
        targets: ``[sequences, positions]``.
        start: The position of the input that the first target belongs to.
        ignored: The number that is no token.
    """

    inputs: Any
    targets: Any
    start: int
    ignored: int | None

    def shift(self) -> float:
        """By how many positions later the targets stand in the input: 1 wherever that fits; NaN if none does."""
        for shift in (1, 0, *range(2, _FARTHEST + 1)):
            later = self.inputs[:, :, self.start + shift :]
            length = min(later.shape[-1], self.targets.shape[-1])
            wanted = self.targets[:, :length]
            known = np.ones_like(wanted, bool) if self.ignored is None else wanted != self.ignored
            equal = ((later[:, :, :length] == wanted) & known).sum((1, 2))
            if known.sum() >= _MIN_PAIRS and equal.max(initial=0) >= _FITS * known.sum():
                return float(shift)
        return math.nan


def targets(by_number: bool, whole: bool, given: Mapping[str, Any], axis: int, most: int | None) -> dict[str, Any]:
    """The fields of ``LossSums`` about the target of a call.

    Args:
        by_number: Whether it is the numbers of classes.
        whole: Whether it is else a share for every class.
        given: The arguments by name.
        axis: The dimension of the outputs.
        most: The most patterns that are looked at.
    """
    target = given["target"]
    if by_number:
        target = target.reshape(-1)
        step = 1 if most is None else max(1, math.ceil(len(target) / most))
        return {"classes": target[::step].float(), "ignored": given.get("ignore_index")}
    target = target if target.is_floating_point() else target.float()
    values, lies = sample(target, axis if -axis <= target.dim() else 0, most)
    several = None
    if whole and values.shape[1 - lies] > 1:
        ones = (values == 1).sum(1 - lies)
        several = torch.count_nonzero((ones > 1) & (ones == torch.count_nonzero(values, 1 - lies))).to(values.dtype)
    return {"target": ValueSummary.of(values), "several": several}


def start_of(name: str, args: tuple[Any, ...], before: tuple[int, int] | None) -> tuple[int, int] | None:
    """Where along its first two dimensions a cut or reshaped tensor begins; None where that is unknown.

    >>> x = torch.zeros(4, 9, 3)
    >>> start_of("__getitem__", (x, (slice(None), slice(2, -1))), (0, 0))
    (0, 2)
    >>> start_of("__getitem__", (x, (Ellipsis, slice(1, None), slice(None))), (0, 1))
    (0, 2)
    >>> start_of("__getitem__", (x, torch.arange(3)), (0, 0)) is None
    True
    """
    if before is None or name in _CUTS:
        return None
    if name != "__getitem__":
        return before
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    if index and index[0] is Ellipsis:
        index = (*[slice(None)] * (args[0].dim() - len(index) + 1), *index[1:])
    starts = [_first(each) for each in index]
    if None in starts or any(starts[2:]):
        return None
    first, second = (*starts[:2], 0, 0)[:2]
    return before[0] + first, before[1] + second  # type: ignore[operator]


def tokens(annotation: Any, embedded: Sequence[Tensor], target: Tensor, ignored: int | None) -> dict[str, Any]:
    """The fields of ``LossSums`` about tokens, where every position of the outputs is known to belong to one of them.

    Args:
        annotation: What is known of the input of the loss.
        embedded: The tokens that embeddings were looked up for.
        target: The numbers of the classes wanted.
        ignored: The number that is none of a class.
    """
    origin, start = origin_of(annotation), annotation.start if isinstance(annotation, Derived) else (0, 0)
    if not isinstance(origin, WeightedTally) or start is None:
        return {}
    matching = [ids for ids in embedded if tuple(ids.shape) == origin.shape[:-1] or (ids.numel(),) == origin.shape[:-1]]
    if not matching:
        return {}
    ids = [each for each in matching if each.shape == matching[-1].shape]
    (rows, columns), count = ids[-1].shape, target.numel()
    found: dict[str, Any] = {}
    if count % rows == 0 and 1 < count // rows <= columns - start[1]:
        found["along_rows"] = _pair(ids, target.reshape(rows, -1), start[1], ignored)
    if count % columns == 0 and 1 < count // columns <= rows - start[0]:
        along = [each.T for each in ids]
        found["along_columns"] = _pair(along, target.reshape(-1, columns).T, start[0], ignored)
    return found


def _pair(ids: Sequence[Tensor], target: Tensor, start: int, ignored: int | None) -> TokenSums:
    most = start + _COLUMNS + _FARTHEST
    inputs = torch.stack([each[:_ROWS, :most].float() for each in ids])
    return TokenSums(inputs, target[:_ROWS, :_COLUMNS].float(), start, ignored)


def _first(index: Any) -> int | None:
    """Where an index of one dimension begins, if it takes what follows."""
    if not isinstance(index, slice) or index.step not in (None, 1):
        return None
    first = index.start or 0
    return first if isinstance(first, int) and first >= 0 else None
