"""Batches that are read once: those to train on, in the loader's order, and those held back, spread over the epoch."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler

from lightning_tricks._compat import lightning as compat
from lightning_tricks.experiments.asking.sampling import untouched
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.model.batches import is_batch, number_of_samples, tensors_in

MOST_BATCHES = 400
MOST_BYTES = 256 * 2**20
HELD_BACK = 8  # batches at most
MOST_HELD = 1024  # patterns


@dataclass(frozen=True)
class Batches:
    """What experiments with short trainings are fed.

    Args:
        train: In the order of the loader.
        held: On which shares are measured. Where there are too few batches they are those of the training.
        seen: Some of the training, for shares on what was trained on.
        shuffles: Whether the loader is known to shuffle.
        apart: Whether those held back are others than those of the training.
    """

    train: list[Any]
    held: list[Any]
    seen: list[Any]
    shuffles: bool = False
    apart: bool = True

    @classmethod
    def of(cls, data: Any, seconds: float = math.inf) -> Batches:
        """Read a loader, a LightningDataModule, an iterable of batches or one batch, for so many seconds at most.

        Raises:
            NotAskedError: There is no batch.
        """
        loader = compat.loader_of(data) if hasattr(data, "train_dataloader") else data
        with untouched(loader):
            batches = _read([loader] if is_batch(loader) else loader, seconds)
        if not batches:
            raise NotAskedError("the data hold no batch")
        count = min(HELD_BACK, len(batches) // 4 or int(len(batches) > 1))
        where = {int((k + 0.5) * len(batches) / count) for k in range(count)}
        held = [batch for index, batch in enumerate(batches) if index in where]
        train = _apart([batch for index, batch in enumerate(batches) if index not in where], held)
        seen = train[:: max(1, len(train) // max(1, count))]
        shuffles = isinstance(getattr(loader, "sampler", None), RandomSampler)
        return cls(train, _few(held) or _few(train), _few(seen), shuffles, bool(held))

    def stream(self, seed: int) -> Iterator[Any]:
        """Batches to train on without end: pass after pass, from another one on for every seed."""
        start = (seed * len(self.train)) // 3 % len(self.train)
        return itertools.islice(itertools.cycle(self.train), start, None)

    @property
    def size(self) -> int:
        """Patterns in a batch."""
        return number_of_samples(self.train[0])

    def measured_on(self, data: Any) -> Batches:
        """The same, with other batches to measure on."""
        loader = compat.loader_of(data) if hasattr(data, "train_dataloader") else data
        with untouched(loader):
            found = _few(_read([loader] if is_batch(loader) else loader))
        return replace(self, held=found or self.held)

    def shuffled(self, seed: int = 0) -> Batches:
        """The same patterns in batches of the same sizes, mixed over all batches of the training.

        Raises:
            NotAskedError: Batches are no plain tensors with a pattern to an entry of the first axis.
        """
        sizes = [number_of_samples(batch) for batch in self.train]
        order = torch.randperm(sum(sizes), generator=Generator().manual_seed(seed))
        whole = concatenated(self.train)
        train = [taken(whole, index) for index in order.split(sizes)]
        return replace(self, train=train, seen=train[: len(self.seen)], shuffles=True)

    def joined(self, count: int) -> Batches:
        """So many batches of the training as one.

        Raises:
            NotAskedError: As ``shuffled``, or there are fewer.
        """
        groups = [self.train[k : k + count] for k in range(0, len(self.train) - count + 1, count)]
        if not groups:
            raise NotAskedError(f"there are only {len(self.train)} batches")
        return replace(self, train=[concatenated(group) for group in groups])


def concatenated(batches: list[Any]) -> Any:
    """Batches as one.

    Raises:
        NotAskedError: They are no plain tensors of one size but for the first axis.
    """
    first = batches[0]
    try:
        if isinstance(first, Tensor):
            return torch.cat(batches)
        if type(first) in (list, tuple):
            return type(first)(concatenated(list(parts)) for parts in zip(*batches, strict=True))
        if type(first) is dict:
            return {key: concatenated([batch[key] for batch in batches]) for key in first}
    except (RuntimeError, KeyError, ValueError) as error:
        raise NotAskedError(f"batches cannot be put together: {error}") from error
    raise NotAskedError(f"batches with a {type(first).__name__} cannot be put together")


def taken(batch: Any, index: Tensor) -> Any:
    """Some patterns of a batch."""
    if isinstance(batch, Tensor):
        return batch[index.to(batch.device)]
    if isinstance(batch, dict):
        return {key: taken(value, index) for key, value in batch.items()}
    return type(batch)(taken(value, index) for value in batch)


def _apart(train: list[Any], held: list[Any]) -> list[Any]:
    """Batches without the patterns that are held back: a loader may draw with repetition, or hold several epochs."""
    keys = {key for batch in held for key in _keys(batch)}
    found = []
    for batch in train if keys else []:
        stays = torch.tensor([key not in keys for key in _keys(batch)], dtype=torch.bool)
        if not len(stays):
            return train
        if bool(stays.any()):
            found.append(batch if bool(stays.all()) else taken(batch, stays.nonzero().flatten()))
    return found if 2 * len(found) > len(train) else train


def _keys(batch: Any) -> list[int]:
    """A number for every pattern, the same for the same; none where a batch is no plain tensors of one length."""
    tensors = list(tensors_in(batch))
    if type(batch) not in (list, tuple, dict) or len(tensors) != len(batch) or not all(t.dim() for t in tensors):
        return []
    if len({len(tensor) for tensor in tensors}) != 1:
        return []
    rows = [
        tensor.detach().cpu().flatten(1) if tensor.dim() > 1 else tensor.detach().cpu()[:, None] for tensor in tensors
    ]
    parts = [[hash(row.tobytes()) for row in each.contiguous().numpy()] for each in rows]
    return [hash(key) for key in zip(*parts, strict=True)]


def _few(batches: list[Any]) -> list[Any]:
    """As many as hold enough patterns, at least one."""
    found, count = [], 0
    for batch in batches:
        if count < MOST_HELD:
            found.append(batch)
            count += number_of_samples(batch)
    return found


def _read(loader: Any, seconds: float = math.inf) -> list[Any]:
    if not isinstance(loader, Iterable):
        raise TypeError(f"data must be a loader, an iterable of batches or one batch, got {type(loader).__name__}")
    if type(loader) is DataLoader and not isinstance(loader.dataset, IterableDataset):
        plain: Any = loader
        if plain.batch_sampler is not None and plain.collate_fn is not None:
            return _without_workers(plain, seconds)
    found, begun = list[Any](), time.perf_counter()
    for batch in loader:
        found.append(batch)
        if len(found) >= _limit(found[:1]) or time.perf_counter() - begun > seconds:
            break
    return found


def _without_workers(loader: Any, seconds: float) -> list[Any]:
    """Batches over the whole epoch, in its order; of a long one, or where time is short, as evenly spread as may be."""
    begun, indices = time.perf_counter(), list(itertools.islice(loader.batch_sampler, 100_000))
    found = dict[int, Any]()
    order = torch.randperm(len(indices), generator=Generator().manual_seed(0)).tolist()
    for k in order:
        found[k] = loader.collate_fn([loader.dataset[i] for i in indices[k]])
        if len(found) >= _limit([found[order[0]]]) or time.perf_counter() - begun > seconds:
            break
    return [found[k] for k in sorted(found)]


def _limit(batches: list[Any]) -> int:
    size = sum(t.numel() * t.element_size() for batch in batches for t in tensors_in(batch))
    return max(8, min(MOST_BATCHES, MOST_BYTES // max(size, 1)))
