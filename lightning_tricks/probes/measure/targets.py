"""What a loss was told to wish for, and whether the outputs answer so: values, classes, tokens that stand later."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_tricks.probes.measure.loss_and_norm_sums import MOST_COUNTED, ValueSummary
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


@dataclass(frozen=True)
class ClassAnswers(Sums):
    """The class that the outputs answer for each pattern, and the one that was wanted: a few thousand numbers.

    Args:
        answered: ``[patterns]``.
        wanted: ``[patterns]``.
        ignored: The number that is none of a class.
    """

    answered: Any
    wanted: Any
    ignored: int | None

    def measures(self, outputs: int) -> dict[str, tuple[int, ...]]:
        """How often each class was wanted, answered, and both."""
        known = np.full(self.wanted.shape, True) if self.ignored is None else self.wanted != self.ignored
        wanted, answered = (each[known].astype(np.int64) for each in (self.wanted, self.answered))
        if wanted.min(initial=0) < 0 or wanted.max(initial=0) >= outputs:
            return {}
        each = {"wanted": wanted, "answered": answered, "right": wanted[wanted == answered]}
        return {name: tuple(np.bincount(numbers, minlength=outputs).tolist()) for name, numbers in each.items()}


@dataclass(frozen=True)
class YesNoAnswers(Sums):
    """Of outputs that each say yes or no.

    Args:
        elements: How many were looked at.
        yes: How many of them were wanted to say yes, do so, and both: ``[3]``.
    """

    elements: int
    yes: Any

    def measures(self, outputs: int) -> dict[str, tuple[int, ...]]:
        """How often no and yes were wanted, answered, and both."""
        wanted, answered, both = (int(count) for count in self.yes)
        right = self.elements - wanted - answered + both, both
        pairs = {name: (self.elements - count, count) for name, count in (("wanted", wanted), ("answered", answered))}
        return {**pairs, "right": right}


def targets(
    by_number: bool,
    classes: bool,
    given: Mapping[str, Any],
    values: Tensor,
    lies: int,
    axis: int,
    most: int | None,
    cut: float | None,
) -> dict[str, Any]:
    """The fields of ``LossSums`` about the target of a call, and about whether the outputs answer it.

    Args:
        by_number: Whether it is the numbers of classes.
        classes: Whether one class is right for a pattern.
        given: The arguments by name.
        values: The outputs that are looked at.
        lies: The dimension of their patterns.
        axis: The dimension of the outputs.
        most: The most patterns that are looked at.
        cut: Above it an output says yes; None where outputs say no such thing.
    """
    target, ignored = given["target"].detach(), given.get("ignore_index")
    few = 1 < values.shape[1 - lies] <= MOST_COUNTED
    if by_number:
        wanted = sample(target.unsqueeze(axis), axis, most).values.reshape(-1).float()
        answers = ClassAnswers(values.argmax(1 - lies).float(), wanted, ignored) if few else None
        return {"classes": wanted, "ignored": ignored, "answers": answers}
    target = target if target.is_floating_point() else target.float()
    aims, along = sample(target, axis if -axis <= target.dim() else 0, most)
    found: dict[str, Any] = {"target": ValueSummary.of(aims)}
    several = aims.shape[1 - along] > 1
    if several and aims.shape[1 - along] <= MOST_COUNTED:
        found["target_means"] = aims.mean(along)
    if classes and several:
        ones = (aims == 1).sum(1 - along)
        only = (ones > 1) & (ones == torch.count_nonzero(aims, 1 - along))
        found["several"] = torch.count_nonzero(only).to(aims.dtype)
        if few and target.shape == given["input"].shape:
            found["answers"] = ClassAnswers(values.argmax(1 - lies).float(), aims.argmax(1 - along).float(), None)
    elif cut is not None and target.shape == given["input"].shape:
        yes = aims > 0.5, (values if lies == along else values.mT) > cut
        counts = [torch.count_nonzero(each) for each in (*yes, yes[0] & yes[1])]
        found["answers"] = YesNoAnswers(aims.numel(), torch.stack(counts).float())
    return found


def weights(by_number: bool, yes_or_no: bool, given: Mapping[str, Any]) -> Tensor | None:
    """The weight of each class; of outputs that say yes or no what a no weighs and what a yes does, on average.

    None where nothing is weighted, or there are too many classes.
    """
    weight, positive = given.get("weight"), given.get("pos_weight")
    if weight is None and positive is None:
        return None
    if by_number:
        return weight.detach().float() if weight is not None and len(weight) <= MOST_COUNTED else None
    if not yes_or_no:
        return None
    aims = given["target"].detach().float()
    each = torch.ones_like(aims) if weight is None else weight.detach().float()
    no, yes = each * (1.0 - aims), each * aims
    yes = yes if positive is None else yes * positive.detach().float()
    return torch.stack((no.sum() / (1.0 - aims).sum(), yes.sum() / aims.sum()))


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
