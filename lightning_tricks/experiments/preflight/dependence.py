"""Dependence: does an output depend on the other patterns of its batch, on its own input, on later positions?

A pure function of a callable and its arguments: the same call three times, of which the last with most patterns
exchanged. What a call leaves behind is up to whoever makes it callable.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks.experiments.preflight.follow import CallRecorder
from lightning_tricks.experiments.preflight.patterns import AllAlikeError, Collation, Exchange, NotAskedError, mapped
from lightning_tricks.experiments.preflight.tokens import NextTokens, next_tokens
from lightning_tricks.model.batches import tensors_in
from lightning_tricks.probes.records.preflight import PreflightRecord
from lightning_tricks.probes.watch.outermost import Wanted

UNEQUAL = 0.005  # change of a repeated call over its std: a tenth of what counts as mixing
CONSTANT = 1e-6  # std over patterns over the size of an output that is the same for all of them
MIXES = 0.05  # change over std, from which it is followed where
MIXES_COLLATED = 1e-4  # the same of patterns that meet by chance; without mixing it is 0, or 1e-7 by rounding
_TINY = 1e-30
_FOLLOWED = 2  # patterns whose earlier positions are followed


@dataclass(frozen=True)
class Dependence:
    """What was found, and the output of the plain call."""

    record: PreflightRecord
    outputs: list[Tensor]


def dependence(
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    collation: Collation,
    targets: Sequence[Wanted] = (),
    module: nn.Module | None = None,
    path: str = "",
) -> Dependence:
    """Call it three times, at the last with other patterns between the first and the last.

    Args:
        call: What is asked; each call is to begin with the same random numbers.
        args, kwargs: What it is called with; every call is given copies.
        collation: Which axis of the arguments counts patterns.
        targets: Those of its losses: with sequences among the arguments that they follow, only the later positions are
            exchanged, so that the same call tells whether they are seen too early.
        module: What runs, to name the place.
        path: Its path in the model.

    Raises:
        NotAskedError: With these arguments it cannot be asked, or the same arguments give different outputs.
        AllAlikeError: All patterns are the same.

    >>> x = torch.randn(8, 3)
    >>> answer = dependence(lambda x: x.softmax(0), (x,), {}, Collation.of(x))
    >>> answer.record.mixing > 0.05, answer.record.place.kind, answer.record.place.dim
    (True, 'softmax', 0)
    """
    module = nn.Module() if module is None else module
    tokens = next_tokens(args, kwargs, targets)
    if not any(collation.size in tensor.shape for tensor in tensors_in((args, kwargs))):
        collation = Collation.of((args, kwargs))  # the step makes batches of its own, as from what it remembers
    size = collation.size if tokens is None else tokens.patterns
    if size is None:
        raise NotAskedError("it cannot be told which axis of the batch counts its patterns")
    if size < 2 and tokens is None:
        raise NotAskedError("the batch holds one pattern")
    exchange = Exchange.of(size)
    changed_args, changed_kwargs = _exchanged((args, kwargs), exchange, collation, tokens)
    base = _outputs(call, args, kwargs, tokens, contextlib.nullcontext())
    selects = [_kept(exchange), *([] if tokens is None else [_early(exchange, tokens)])]
    again = CallRecorder(module, path, selects)
    repeated = _outputs(call, args, kwargs, tokens, again)
    exact = all(map(torch.equal, base, repeated))
    other = CallRecorder(module, path, selects, again, exact=exact)
    exchanged = _outputs(call, changed_args, changed_kwargs, tokens, other)
    if not _alike(base, repeated) or not _alike(base, exchanged):
        raise NotAskedError("it does not give outputs of the same shape again")
    measured = [
        _changes(x, y, z, exchange, tokens) for x, y, z in zip(base, repeated, exchanged, strict=True) if _axes(x, size)
    ]
    if not measured:
        raise NotAskedError("no output has an axis of the patterns")
    unequal, mixing, own, later, here = torch.stack(measured).amax(0).tolist()
    if not unequal <= UNEQUAL:
        raise NotAskedError("the same arguments give different outputs")
    if tokens is not None and size < 3:
        mixing = math.nan
    independent = not mixing > (MIXES_COLLATED if collation.collated else MIXES)
    record = PreflightRecord(
        path,
        size,
        unequal,
        mixing,
        own,
        other.place(0) if not independent or (own <= UNEQUAL and tokens is None) else None,
        later if tokens is not None and independent else math.nan,
        other.place(1) if tokens is not None and independent and later > UNEQUAL else None,
        tokens.share if tokens is not None and tokens.shift else math.nan,
        unshifted=tokens.share if tokens is not None and not tokens.shift else math.nan,
        here=here if tokens is not None else math.nan,
        collated=collation.collated,
    )
    return Dependence(record, base)


def _exchanged(given: Any, exchange: Exchange, collation: Collation, tokens: NextTokens | None) -> Any:
    differ: list[Tensor] = []

    def change(tensor: Tensor) -> Tensor:
        if tokens is not None:
            of_tokens = any(tensor is ids for ids in tokens.ids)
            changed = tokens.exchanged(tensor, exchange) if of_tokens else tensor
        else:
            axis = collation.axis(tensor)
            changed = tensor if axis is None else exchange.applied(tensor, axis)
        if changed is not tensor:
            differ.append((changed != tensor).any())
        return changed

    changed = mapped(given, change)
    if not differ:
        raise NotAskedError("no argument has an axis of the patterns")
    if not bool(torch.stack(differ).any()):
        raise AllAlikeError("the patterns of the batch are all alike")
    return changed


def _outputs(call: Callable[..., Any], args: Any, kwargs: Any, tokens: NextTokens | None, follow: Any) -> list[Tensor]:
    given, named = mapped((args, kwargs), lambda tensor: tensor.detach().clone())
    with follow:
        made = call(*given, **named)
    outputs = [x.detach().float() for x in tensors_in(made) if x.is_floating_point() and x.dim()]
    return outputs if tokens is None else [_in_positions(x, tokens) for x in outputs if _fits(x, tokens)]


def _fits(x: Tensor, tokens: NextTokens) -> bool:
    """Whether these are what the loss asks for, for every position: scores of classes, or values."""
    last = tokens.outputs == 1 or x.shape[-1] == tokens.outputs
    return last and x.numel() == tokens.read.numel() * tokens.outputs


def _in_positions(x: Tensor, tokens: NextTokens) -> Tensor:
    """As patterns x positions x classes."""
    rows = x.reshape(*tokens.ids[0].shape[:2], tokens.outputs)
    return rows if tokens.time == 1 else rows.transpose(0, 1)


def _alike(one: list[Tensor], other: list[Tensor]) -> bool:
    return [x.shape for x in one] == [x.shape for x in other]


def _axes(x: Tensor, size: int) -> list[int]:
    """The axes that may be that of the patterns."""
    return [axis for axis, length in enumerate(x.shape) if length == size]


def _changes(base: Tensor, again: Tensor, other: Tensor, exchange: Exchange, tokens: NextTokens | None) -> Tensor:
    """Change when repeated, of the kept, of the exchanged patterns, of earlier positions, of the first exchanged."""
    if tokens is not None:
        return _along(0, base, again, other, exchange, tokens)
    axes = _axes(base, exchange.size)
    found = torch.stack([_along(axis, base, again, other, exchange) for axis in axes])
    # Of several axes of that length, the patterns' is the one along which those that were kept stay as they were.
    return found[found[:, 1].argmin()]


def _along(
    axis: int, base: Tensor, again: Tensor, other: Tensor, exchange: Exchange, tokens: NextTokens | None = None
) -> Tensor:
    if tokens is None:
        base, again, other = (x.movedim(axis, 0).reshape(exchange.size, -1) for x in (base, again, other))
    kept, others = (exchange.index(which, base.device) for which in (exchange.kept, exchange.others))
    std = base.var(0, correction=0).mean().sqrt()
    size = base.square().mean().sqrt()
    unit = std.where(std > CONSTANT * size, size + _TINY)
    squares = (other - base).square().flatten(1)
    by_pattern = squares.mean(1).sqrt()
    nothing = torch.zeros((), device=base.device)
    mixing = by_pattern[kept].amax() / unit
    own = by_pattern[others].amax() / unit if len(others) else nothing
    later, here = nothing, nothing
    if tokens is not None:
        rows = others if exchange.size > 2 else slice(None)
        difference = (other - base)[rows]
        later = _later(difference, tokens.read[rows], tokens.cut) / unit
        here = difference[:, tokens.cut].square().mean(-1).sqrt().amax() / unit
    return torch.stack([(again - base).square().mean().sqrt() / unit, mixing, own, later, here])


def _later(difference: Tensor, read: Tensor, cut: int) -> Tensor:
    """The largest change of a position that is read, before the first that was exchanged."""
    by_position = difference.square().mean(-1).sqrt()[:, :cut]
    return by_position.where(read[:, :cut], 0.0).amax()


def _kept(exchange: Exchange) -> Callable[[Tensor], list[tuple[int, Tensor]]]:
    def select(x: Tensor) -> list[tuple[int, Tensor]]:
        index = exchange.index(exchange.kept, x.device)
        return [(axis, x.index_select(axis, index)) for axis in _axes(x, exchange.size)]

    return select


def _early(exchange: Exchange, tokens: NextTokens) -> Callable[[Tensor], list[tuple[int, Tensor]]]:
    rows = exchange.others[:_FOLLOWED] if exchange.size > 2 else (0,)

    def select(x: Tensor) -> list[tuple[int, Tensor]]:
        index = exchange.index(rows, x.device)
        times = _axes(x, tokens.positions)
        pairs = [(a, b) for a in _axes(x, exchange.size) for b in times if a != b]
        return [(b, x.index_select(a, index).narrow(b, 0, tokens.cut)) for a, b in pairs]

    return select
