"""Batches of a loader that stand for its whole epoch, taken without moving the loader."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterable, Iterator, Sized
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from lightning_tricks.experiments.asking.streams import own_streams_kept
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.model.isolated import keep_random_numbers, same_stream

_SEED = 0
_LARGE = 1_000_000  # numbers of a tensor: data, not a state


def generators_of(data: Any) -> list[Generator]:
    """What a loader draws its order from."""
    samplers = [getattr(data, "sampler", None), getattr(getattr(data, "batch_sampler", None), "sampler", None)]
    sources = [getattr(each, "generator", None) for each in (data, *samplers)]
    return [generator for generator in sources if isinstance(generator, Generator)]


@contextlib.contextmanager
def untouched(*loaders: Any) -> Iterator[None]:
    """A block that may read loaders: random numbers, theirs, their data sets' and others, and samplers go on from where
    they were."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_streams_kept(*(getattr(data, "dataset", data) for data in loaders)))
        stack.enter_context(keep_random_numbers(generators=[each for data in loaders for each in generators_of(data)]))
        for data in loaders:
            for sampler in _samplers_of(data):
                stack.enter_context(_replaced_state(sampler, getattr(data, "dataset", None)))
        yield


def _samplers_of(data: Any) -> list[Any]:
    """Those that may keep more than a stream of random numbers."""
    batch_sampler = getattr(data, "batch_sampler", None)
    found = [getattr(data, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)]
    of_user = [each for each in found if each is not None and not type(each).__module__.startswith("torch.")]
    return list({id(each): each for each in of_user}.values())


@contextlib.contextmanager
def _replaced_state(sampler: Any, dataset: Any) -> Iterator[None]:
    """A block in which an object has copies of what it holds, but for the data; what has no copy is left as it is."""
    own = getattr(sampler, "__dict__", None)
    if own is None:
        yield
        return
    kept, memo = dict(own), {id(dataset): dataset}
    for value in kept.values():
        if isinstance(value, Generator):
            memo[id(value)] = same_stream(value)
        elif isinstance(value, Tensor) and value.numel() > _LARGE:
            memo[id(value)] = value
    with contextlib.suppress(Exception):
        own.update(copy.deepcopy(kept, memo))
    try:
        yield
    finally:
        own.clear()
        own.update(kept)


def validation_of(data: Any) -> Any:
    """The validation batches of a LightningDataModule that is set up; None where it has none, of anything else too."""
    if not hasattr(data, "val_dataloader"):
        return None
    try:
        found = data.val_dataloader()
    except Exception:  # Lightning's own raises where there is none
        return None
    return found if isinstance(found, DataLoader) else None


def spread_batches(data: Any, count: int, size: int | None = None) -> list[Any]:
    """So many batches: of a loader over a data set patterns from all of its length, else the first ones.

    Args:
        data: A loader, an iterable of batches, or one batch.
        count: How many.
        size: Of how many patterns, where the loader leaves it open which are together.

    Raises:
        NotAskedError: There is none.

    >>> loader = DataLoader(torch.arange(100), batch_size=5)
    >>> [int(batch.max() - batch.min()) > 20 for batch in spread_batches(loader, 3)]
    [True, True, True]
    """
    with untouched(data):
        found = list(itertools.islice(drawn(data, size) if is_plain(data) else _batches(data), count))
    if not found:
        raise NotAskedError("the data holds no batch")
    return found


def is_plain(data: Any) -> bool:
    """Whether every pattern is as likely as any other and can be asked for by its number."""
    if not isinstance(data, DataLoader) or data.batch_size is None or isinstance(data.dataset, IterableDataset):
        return False
    usual = type(data.sampler) in (RandomSampler, SequentialSampler)
    return usual and isinstance(data.dataset, Sized) and len(data.dataset) > 0


def drawn(loader: Any, size: int | None = None) -> Iterator[Any]:
    """Batches at random from the data set of a plain loader, without end: every pattern once before any comes twice."""
    length, generator = len(loader.dataset), torch.Generator().manual_seed(_SEED)
    size, waiting = min(size or loader.batch_size, length), list[int]()
    while True:
        if len(waiting) < size:
            waiting += torch.randperm(length, generator=generator).tolist()
        yield loader.collate_fn([loader.dataset[i] for i in waiting[:size]])
        del waiting[:size]


def _batches(data: Any) -> Iterable[Any]:
    if torch.is_tensor(data) or isinstance(data, dict):
        return [data]
    if isinstance(data, (tuple, list)) and any(torch.is_tensor(entry) for entry in data):
        return [data]
    if not isinstance(data, Iterable):
        raise NotAskedError(f"data must be a loader or batches, got {type(data).__name__}")
    return data
