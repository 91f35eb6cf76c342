"""Reading: the patterns of a loader, each with its number, without moving anything of the user's."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from lightning_tricks._compat import lightning as compat
from lightning_tricks.experiments.asking.sampling import is_plain, untouched, validation_of
from lightning_tricks.experiments.data.patterns.fields import Column, columns_of
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.model.batches import is_batch, number_of_samples

MOST = 20_000  # patterns
MOST_BYTES = 256 * 2**20
SECONDS = 20.0  # for reading, where nothing else is asked for
_TOGETHER = 61  # patterns: no other axis is likely to be as long, so that this one is known
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Patterns:
    """What was read of a loader.

    Args:
        inputs: What goes into a network, a column for every tensor of a batch.
        target: What is wanted of it; None where that is not known.
        index: The number of each pattern.
        of_data_set: Whether that is its number in the data set; else its position in the epoch.
        complete: Whether all of an epoch was read.
        source: The data set, where patterns can be asked for by their numbers.
        drawn: How often the loader draws each pattern of an epoch that it draws in its own way; None for once.
    """

    inputs: tuple[Column, ...]
    target: Column | None
    index: np.ndarray
    of_data_set: bool
    complete: bool
    source: Any = None
    drawn: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.index)

    def some(self, which: np.ndarray) -> Patterns:
        """Some of them, by their places or by a mask."""
        places = torch.from_numpy(np.flatnonzero(which) if which.dtype == bool else which)
        inputs = tuple(column.some(places) for column in self.inputs)
        target = None if self.target is None else self.target.some(places)
        drawn = None if self.drawn is None else self.drawn[which]
        return dataclasses.replace(self, inputs=inputs, target=target, index=self.index[which], drawn=drawn)

    @property
    def numbering(self) -> str:
        """What the numbers of patterns are."""
        return "numbers in the data set" if self.of_data_set else "positions in the epoch"


def read(data: Any, seconds: float = SECONDS, most: int = MOST) -> Patterns:
    """Read patterns of a loader, a data set, a LightningDataModule, an iterable of batches or one batch.

    Of a loader over a data set with numbers patterns are asked of the data set itself, in the main process, evenly from
    all of its length; all streams of random numbers and samplers are afterwards as they were.

    Raises:
        NotAskedError: There is nothing to read, or it could be read only once.
    """
    data = compat.loader_of(data) if hasattr(data, "train_dataloader") else data
    with untouched(data):
        if is_batch(data):
            return _of_batches([data], seconds, most)
        if _has_numbers(data):
            return _of_data_set(data, seconds, most)
        return _of_batches(again(data), seconds, most)


def read_validation(data: Any, seconds: float = SECONDS) -> Patterns | None:
    """The same of validation data; None where there are none."""
    found = validation_of(data) if hasattr(data, "val_dataloader") else data
    return None if found is None else read(found, seconds)


def _has_numbers(data: Any) -> bool:
    source = getattr(data, "dataset", data)
    usable = hasattr(source, "__getitem__") and isinstance(source, Sized) and not isinstance(source, IterableDataset)
    if not usable or isinstance(source, (tuple, list, Mapping, Tensor)):
        return isinstance(data, DataLoader) and usable and data.batch_sampler is not None
    return isinstance(data, Dataset) or (isinstance(data, DataLoader) and data.batch_sampler is not None)


def again(data: Any) -> Iterable[Any]:
    """Batches that can be read once more."""
    if isinstance(data, Iterator) or not isinstance(data, Iterable):
        raise NotAskedError(
            "the data can be read only once" if isinstance(data, Iterator) else "the data hold no batch"
        )
    if type(data) is DataLoader and isinstance(data.dataset, IterableDataset):
        # Not the loader itself: it may keep workers that go on from where they were.
        return DataLoader(data.dataset, batch_size=data.batch_size, collate_fn=data.collate_fn)
    return data


def _of_data_set(data: Any, seconds: float, most: int) -> Patterns:
    source: Any = getattr(data, "dataset", data)
    collate = getattr(data, "collate_fn", default_collate)
    numbers, counts, complete = _numbers(data, len(source), most)
    blocks = [numbers[i : i + _TOGETHER] for i in range(0, len(numbers), _TOGETHER)]
    order = np.random.default_rng(_SEED).permutation(len(blocks))  # evenly spread, wherever the time ends
    found, taken, begun = dict[int, Any](), 0, time.perf_counter()
    for k in order:
        columns = columns_of(collate(items(source, blocks[k])), len(blocks[k]))
        found[int(k)] = columns
        taken += sum(column.nbytes for column in columns)
        if time.perf_counter() - begun > seconds or taken > MOST_BYTES:
            break
    kept = sorted(found)
    index = np.concatenate([blocks[k] for k in kept]) if kept else np.zeros(0, int)
    drawn = None if counts is None else np.concatenate([counts[k * _TOGETHER : (k + 1) * _TOGETHER] for k in kept])
    return _joined([found[k] for k in kept], index, True, complete and len(kept) == len(blocks), source, drawn)


def items(source: Any, numbers: Iterable[int]) -> list[Any]:
    """Patterns of a data set by their numbers."""
    wanted = [int(i) for i in numbers]
    if callable(getattr(source, "__getitems__", None)):
        return list(source.__getitems__(wanted))
    return [source[i] for i in wanted]


def _numbers(data: Any, length: int, most: int) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Which patterns to read, in their order; how often each is drawn, where that is the loader's own way; if all."""
    if not isinstance(data, DataLoader) or is_plain(data):
        numbers, counts = np.arange(length), None
    else:
        sampler: Any = data.batch_sampler
        batches = itertools.islice(sampler, 10 * most)
        drawn = list(itertools.islice((int(i) for batch in batches for i in batch), 10 * most))
        numbers, counts = np.unique(np.array(drawn, int), return_counts=True)
    if len(numbers) <= most:
        return numbers, counts, True
    some = np.sort(np.random.default_rng(_SEED).choice(len(numbers), most, replace=False))
    return numbers[some], None if counts is None else counts[some], False


def _of_batches(batches: Iterable[Any], seconds: float, most: int) -> Patterns:
    found, count, taken, begun, complete = list[Any](), 0, 0, time.perf_counter(), True
    for batch in batches:
        columns = columns_of(batch, number_of_samples(batch))
        found.append(columns)
        count, taken = count + len(columns[0]), taken + sum(column.nbytes for column in columns)
        if count >= most or time.perf_counter() - begun > seconds or taken > MOST_BYTES:
            complete = False
            break
    return _joined(found, np.arange(count), False, complete)


def _joined(
    parts: Sequence[Sequence[Column]],
    index: np.ndarray,
    of_data_set: bool,
    complete: bool,
    source: Any = None,
    drawn: np.ndarray | None = None,
) -> Patterns:
    if not parts:
        raise NotAskedError("the data hold no batch")
    if len({tuple(column.name for column in part) for part in parts}) > 1:
        raise NotAskedError("batches are not built alike")
    whole = [Column.joined(columns) for columns in zip(*parts, strict=True)]
    inputs = tuple(column for column in whole if not column.is_target)
    targets = [column for column in whole if column.is_target]
    if not inputs:
        raise NotAskedError("a batch has no input")
    return Patterns(inputs, targets[0] if len(targets) == 1 else None, index, of_data_set, complete, source, drawn)
