"""Sequences of tokens among the arguments of a call whose targets are the next token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_tricks.experiments.patterns import SEED, Exchange
from lightning_tricks.model.batches import tensors_in
from lightning_tricks.probes.watch.outermost import WantedClasses

_FITS = 0.9  # share of the targets
_MIN_PAIRS = 16  # that can tell


@dataclass(frozen=True)
class NextTokens:
    """Arguments that are tokens, and which of their positions a loss asks for the next one.

    Args:
        ids: The arguments, all of one shape.
        time: The axis of the positions; the other one is that of the patterns.
        read: Whether a loss reads a position, ``[patterns, positions]``.
        share: Share of the targets that are the token one later, of those that differ from the token at their place.
        classes: The number of classes of that loss.
        cut: The first position that is exchanged: about half of what is read lies before it.
    """

    ids: tuple[Tensor, ...]
    time: int
    read: Tensor
    share: float
    classes: int
    cut: int

    @property
    def patterns(self) -> int:
        return self.ids[0].shape[1 - self.time]

    @property
    def positions(self) -> int:
        return self.ids[0].shape[self.time]

    def exchanged(self, ids: Tensor, exchange: Exchange) -> Tensor:
        """Tokens whose later part is that of other patterns; where there are none, some of their own."""
        rows = ids.transpose(0, 1) if self.time == 0 else ids
        if exchange.size > 2:
            other = exchange.applied(rows, 0)[:, self.cut :]
        else:
            length = self.positions - self.cut
            draws = torch.randint(length, (length,), generator=torch.Generator().manual_seed(SEED))
            other = rows[:, self.cut :][:, draws.to(rows.device)]
        changed = torch.cat([rows[:, : self.cut], other], 1)
        return changed.transpose(0, 1).contiguous() if self.time == 0 else changed


def next_tokens(args: Any, kwargs: Any, targets: Sequence[WantedClasses]) -> NextTokens | None:
    """The tokens among the arguments that the targets follow; None where the targets are anything else.

    Which axis is that of the positions is told by the values: along the other one no target is the next token.
    """
    found: list[tuple[Tensor, int, WantedClasses, Tensor, float]] = []
    for ids in tensors_in((args, kwargs)):
        if ids.dim() == 2 and not ids.is_floating_point() and ids.dtype != torch.bool:
            found += list(_fits(ids, targets))
    if not found:
        return None
    first, time, wanted, read, share = found[0]
    same = tuple(ids for ids, t, *_ in found if ids.shape == first.shape and t == time)
    unique = tuple({id(ids): ids for ids in same}.values())
    counts = read.sum(0).cumsum(0)
    middle = int(torch.searchsorted(counts, counts[-1:] / 2))
    cut = min(max(middle + 1, 1), first.shape[time] - 1)
    return NextTokens(unique, time, read, share, wanted.classes, cut)


def _fits(ids: Tensor, targets: Sequence[WantedClasses]) -> Iterator[tuple[Tensor, int, WantedClasses, Tensor, float]]:
    for time in (1, 0):
        rows = ids if time else ids.T
        patterns, positions = rows.shape
        for wanted in targets:
            length, rest = divmod(wanted.numbers.numel(), patterns)
            if rest or not 1 < length <= positions:
                continue
            for numbers in (wanted.numbers.reshape(patterns, length), wanted.numbers.reshape(length, patterns).T):
                read = torch.ones_like(numbers, dtype=torch.bool)
                if wanted.ignored is not None:
                    read = numbers != wanted.ignored
                share = _share(rows, numbers, read)
                if share >= _FITS:
                    whole = torch.zeros_like(rows, dtype=torch.bool)
                    whole[:, :length] = read
                    yield ids, time, wanted, whole, share
                    break


def _share(rows: Tensor, numbers: Tensor, read: Tensor) -> float:
    """Of the targets that can tell, as the next token is another than the one at their place."""
    length = min(numbers.shape[1], rows.shape[1] - 1)
    later = rows[:, 1 : length + 1]
    tell = read[:, :length] & (later != rows[:, :length])
    equal, count = torch.stack([((later == numbers[:, :length]) & tell).sum(), tell.sum()]).tolist()
    return equal / count if count >= _MIN_PAIRS else 0.0
