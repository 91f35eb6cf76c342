"""Sequences among the arguments of a call, of tokens or of values, whose targets are their next element."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_tricks.experiments.preflight.patterns import SEED, Exchange
from lightning_tricks.model.batches import tensors_in
from lightning_tricks.probes.watch.outermost import Wanted

_FITS = 0.9  # share of the targets
_ALL = 0.995  # the same of targets that are not shifted: those of denoisers differ somewhere
_MIN_PAIRS = 16  # that can tell
_MOST_CHANNELS = 64


@dataclass(frozen=True)
class NextTokens:
    """Arguments that are sequences, and which of their positions a loss asks for the next element.

    Args:
        ids: The arguments, all of one shape: numbers of tokens ``[patterns, positions]``, or values, there or in
            ``[patterns, positions, channels]``; the first two axes may be exchanged.
        time: The axis of the positions; the other one of the first two is that of the patterns.
        read: Whether a loss reads a position, ``[patterns, positions]``.
        share: Share of the targets that are the element so much later, of those where that can be told.
        outputs: How many numbers the network says of a position: classes, or channels.
        cut: The first position that is exchanged: about half of what is read lies before it.
        shift: How much later: 1, or 0 where the targets are the sequence itself.
    """

    ids: tuple[Tensor, ...]
    time: int
    read: Tensor
    share: float
    outputs: int
    cut: int
    shift: int = 1

    @property
    def patterns(self) -> int:
        return self.ids[0].shape[1 - self.time]

    @property
    def positions(self) -> int:
        return self.ids[0].shape[self.time]

    def exchanged(self, ids: Tensor, exchange: Exchange) -> Tensor:
        """Sequences whose later part is that of other patterns; where there are none, some of their own."""
        rows = ids.transpose(0, 1) if self.time == 0 else ids
        if exchange.size > 2:
            other = exchange.applied(rows, 0)[:, self.cut :]
        else:
            length = self.positions - self.cut
            draws = torch.randint(length, (length,), generator=torch.Generator().manual_seed(SEED))
            other = rows[:, self.cut :][:, draws.to(rows.device)]
        changed = torch.cat([rows[:, : self.cut], other], 1)
        return changed.transpose(0, 1).contiguous() if self.time == 0 else changed


def next_tokens(args: Any, kwargs: Any, targets: Sequence[Wanted]) -> NextTokens | None:
    """The sequence among the arguments that the targets follow; None where the targets are anything else.

    Which axis is that of the positions is told by the values: along the other one no target is the next element.
    """
    found: list[_Match] = []
    for ids in tensors_in((args, kwargs)):
        if ids.dim() in (2, 3) and ids.dtype != torch.bool and (ids.is_floating_point() or ids.dim() == 2):
            found += [match for wanted in targets if wanted.elements for match in _matches(ids, wanted)]
    if not found:
        return None
    first = max(found, key=lambda match: match.shift)
    same = (m.ids for m in found if (m.ids.shape, m.time, m.shift) == (first.ids.shape, first.time, first.shift))
    unique = tuple({id(ids): ids for ids in same}.values())
    counts = first.read.sum(0).cumsum(0)
    middle = int(torch.searchsorted(counts, counts[-1:] / 2))
    cut = min(max(middle + 1, 1), first.ids.shape[first.time] - 1)
    return NextTokens(unique, first.time, first.read, first.share, first.outputs, cut, first.shift)


@dataclass(frozen=True)
class _Match:
    ids: Tensor
    time: int
    read: Tensor
    share: float
    outputs: int
    shift: int


def _matches(ids: Tensor, wanted: Wanted) -> Iterator[_Match]:
    if ids.is_floating_point() == bool(wanted.classes) or wanted.numbers.is_floating_point() == bool(wanted.classes):
        return
    channels = ids.shape[2] if ids.dim() == 3 else 1
    if channels > _MOST_CHANNELS:
        return
    for time in (1, 0):
        rows = ids.unsqueeze(-1) if ids.dim() == 2 else ids
        rows = rows if time else rows.transpose(0, 1)
        for asked in {channels, 1}:
            match = _match(rows, wanted, asked)
            if match is not None:
                read, share, shift = match
                yield _Match(ids, time, read, share, wanted.classes or asked, shift)
                return


def _match(rows: Tensor, wanted: Wanted, asked: int) -> tuple[Tensor, float, int] | None:
    """Which positions are read, and how they match rows of ``[patterns, positions, channels]``."""
    patterns, positions = rows.shape[:2]
    length, rest = divmod(wanted.numbers.numel(), patterns * asked)
    if rest or not 1 < length <= positions:
        return None
    by_time = wanted.numbers.reshape(length, patterns, asked).transpose(0, 1)
    for numbers in (wanted.numbers.reshape(patterns, length, asked), by_time):
        read = torch.ones_like(numbers[..., 0], dtype=torch.bool)
        if wanted.ignored is not None and wanted.classes:
            read = numbers[..., 0] != wanted.ignored
        next_share, own_share = _shares(rows, numbers, read)
        # Many networks give back what they were given; none does of use with single tokens, or numbers, read in order.
        given_back = own_share >= _ALL and (bool(wanted.classes) or rows.shape[2] == 1)
        if next_share >= _FITS or given_back:
            whole = torch.zeros_like(rows[..., 0], dtype=torch.bool)
            whole[:, :length] = read
            return (whole, next_share, 1) if next_share >= _FITS else (whole, own_share, 0)
    return None


def _shares(rows: Tensor, numbers: Tensor, read: Tensor) -> tuple[float, float]:
    """Of the targets that are the next element, and that at their place, where the two differ."""
    length = min(numbers.shape[1], rows.shape[1] - 1)
    own, later, numbers = rows[:, :length], rows[:, 1 : length + 1], numbers[:, :length]
    tell = read[:, :length, None] & (later != own)
    both = [((element == numbers) & tell).sum((0, 1)) for element in (later, own)]
    if numbers.shape[2] == rows.shape[2]:
        both, tell = [equal.sum()[None] for equal in both], tell.sum()[None]
    else:  # one channel is asked for: that which fits best
        tell = tell.sum((0, 1))
    counts = tell.clamp(min=1)
    known = tell >= _MIN_PAIRS
    next_share, own_share = torch.stack([(equal / counts).where(known, 0.0).amax() for equal in both]).tolist()
    return next_share, own_share
