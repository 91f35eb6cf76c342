"""The networks that a LightningModule trains: itself, or the members of an ensemble with what belongs to each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch

from lightning_tricks.model.processes import is_distributed
from lightning_tricks.surgery import Report


class Part(NamedTuple):
    """A network with a batch, or batches, of its own; ``number`` and ``prefix`` say which member of an ensemble."""

    network: Any
    data: Any
    number: int | None = None
    prefix: str = ""


def with_batch(module: Any, batch: Any) -> list[Part]:
    """One network, or each member that trains in this process with its part of a training batch.

    >>> with_batch(torch.nn.Linear(2, 1), 3)
    [Part(network=Linear(in_features=2, out_features=1, bias=True), data=3, number=None, prefix='')]
    """
    parts = getattr(module, "member_parts", None)
    return [Part(module, batch)] if parts is None else [_part(*item) for item in parts(batch)]


def with_batches(module: Any, batches: Iterable[Any]) -> list[Part]:
    """One network, or each member with batches of the patterns that it trains on."""
    each = getattr(module, "member_batches", None)
    return [Part(module, batches)] if each is None else [_part(*item) for item in each(batches)]


def are_spread(module: Any) -> bool:
    """Whether every process trains members of its own.

    >>> are_spread(torch.nn.Linear(2, 1))
    False
    """
    return getattr(module, "parallel", "data") == "members"


def take_weights_of_first_process(module: torch.nn.Module) -> None:
    """Of what each process drew by itself that of the first, where all train the same networks."""
    if is_distributed() and not are_spread(module):
        for tensor in (*module.parameters(), *module.buffers()):
            torch.distributed.broadcast(tensor.detach(), src=0)


def _part(number: int, member: Any, data: Any) -> Part:
    return Part(member, data, number, f"networks.{number}.")


@contextlib.contextmanager
def own_random_numbers(part: Part, seed: int) -> Iterator[None]:
    """A block in which a member draws its own random numbers, wherever it is trained; one network draws global ones."""
    if part.number is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed + part.number)
        yield


def merge(report: Report, own: Report, part: Part) -> None:
    """Put a member's report into that of all, its layers with their full names."""
    for entry in own.changed:
        report.change(part.prefix + entry.layer, entry.what, entry.values)
    for entry in own.left:
        report.leave(part.prefix + entry.layer, entry.what)
