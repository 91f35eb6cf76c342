"""Neighbours: the data as experiments ask of them, read once, with the nearest patterns of each pattern."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_tricks.experiments.asking.registry import Subject
from lightning_tricks.experiments.data.patterns.features import Space, classes_of
from lightning_tricks.experiments.data.patterns.reading import SECONDS, Patterns, read, read_validation
from lightning_tricks.experiments.preflight.patterns import NotAskedError

NEAREST = 10
_PAIRS = 10**8  # distances that are computed at most: more patterns are asked for only some
_AT_ONCE = 4 * 10**6
_SHARE = 0.2  # of the time that is left to a checkup
_KEPT = "data"  # the note of a subject


class Data:
    """Training and validation patterns, and what several experiments want to know of them."""

    def __init__(self, data: Any, val_data: Any = None, seconds: float = SECONDS) -> None:
        begun = time.perf_counter()
        self.train = read(data, seconds)
        if not hasattr(data, "val_dataloader") and val_data is None:
            self.validation: Patterns | None = None
        else:
            left = max(seconds - (time.perf_counter() - begun), 0.2 * seconds)
            self.validation = read_validation(data if val_data is None else val_data, left)

    @functools.cached_property
    def classes(self) -> np.ndarray | None:
        """Of the training patterns."""
        return classes_of(self.train.target)

    @functools.cached_property
    def validation_classes(self) -> np.ndarray | None:
        """Of the validation patterns, where those of the training are classes."""
        return (
            None if self.validation is None or self.classes is None else classes_of(self.validation.target, like=True)
        )

    @functools.cached_property
    def space(self) -> Space:
        return Space.of(self.train)

    @functools.cached_property
    def features(self) -> Tensor:
        """Of the training patterns."""
        return self.space(self.train)

    @functools.cached_property
    def of_training(self) -> Neighbours:
        """The nearest other training patterns of training patterns.

        Raises:
            NotAskedError: There are too few.
        """
        return Neighbours.of(self.features, self.features, NEAREST, same=True)

    @functools.cached_property
    def of_validation(self) -> Neighbours:
        """The nearest training patterns of validation patterns.

        Raises:
            NotAskedError: There are none, or they have another shape.
        """
        if self.validation is None:
            raise NotAskedError("no validation data were given")
        try:
            features = self.space(self.validation)
        except ValueError as error:
            raise NotAskedError("validation inputs have another shape than those of the training") from error
        return Neighbours.of(features, self.features, NEAREST)


class Neighbours:
    """For some patterns the nearest of others: ``index`` and ``distance``, the nearest first."""

    def __init__(self, asked: np.ndarray, index: np.ndarray, distance: np.ndarray) -> None:
        self.asked, self.index, self.distance = asked, index, distance

    @classmethod
    def of(cls, queries: Tensor, base: Tensor, count: int, *, same: bool = False) -> Neighbours:
        """Those of ``queries`` among ``base``; where both are the ``same``, nobody is its own."""
        count = min(count, len(base) - same)
        if count < 1:
            raise NotAskedError("too few patterns")
        asked = np.arange(len(queries))
        most = max(_PAIRS // len(base), 100)
        if len(asked) > most:
            asked = np.sort(np.random.default_rng(0).choice(len(queries), most, replace=False))
        queries = queries[torch.from_numpy(asked)]
        squares, found = base.square().sum(1), []
        step = max(_AT_ONCE // len(base), 1)
        for start in range(0, len(queries), step):
            part = queries[start : start + step]
            apart = torch.addmm(squares, part, base.T, alpha=-2.0)
            if same:
                rows = torch.arange(len(part))
                apart[rows, torch.from_numpy(asked[start : start + step])] = torch.inf
            found.append(apart.topk(count, largest=False, sorted=False).indices)
        nearest = torch.cat(found)
        # Differences of squares are rounded; the few that matter are computed again.
        distance = torch.stack([(queries - base[nearest[:, k]]).norm(dim=1) for k in range(count)], 1)
        distance, order = distance.sort(1)
        return cls(asked, nearest.gather(1, order).numpy(), distance.numpy())


def read_once(subject: Subject) -> Data:
    """What a checkup's experiments share.

    Raises:
        NotAskedError: The data cannot be read.
    """
    if _KEPT not in subject.notes:
        try:
            subject.notes[_KEPT] = Data(_batches(subject), subject.val_data, _SHARE * min(subject.seconds_left, 60.0))
        except NotAskedError as reason:
            subject.notes[_KEPT] = reason
    found = subject.notes[_KEPT]
    if isinstance(found, Exception):
        raise found
    assert isinstance(found, Data)
    return found


def _batches(subject: Subject) -> Any:
    """What can be read again."""
    once = iter(subject.data) is subject.data if hasattr(subject.data, "__next__") else False
    return list(subject.batches) if once else subject.data
