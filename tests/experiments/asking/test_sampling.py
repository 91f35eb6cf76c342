"""Reading a loader leaves every stream of random numbers where it was, a data set's own as well."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import lightning_tricks as lt
from lightning_tricks.experiments.asking.sampling import spread_batches


class Jitter:
    """A transform with random numbers of its own."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def draw(self) -> float:
        if isinstance(self.stream, torch.Generator):
            return float(torch.rand(1, generator=self.stream))
        return float(self.stream.random())


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, stream: Any) -> None:
        self.transform = Jitter(stream)

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.full((6,), self.transform.draw()), torch.tensor(index % 3)


STREAMS: dict[str, Callable[[], Any]] = {
    "NumPy": lambda: np.random.default_rng(0),
    "NumPy, old": lambda: np.random.RandomState(0),
    "Python": lambda: random.Random(0),
    "torch": lambda: torch.Generator().manual_seed(0),
}
READ: dict[str, Callable[[Any], Any]] = {
    "spread": lambda loader: spread_batches(loader, 3),
    "checkup": lambda loader: lt.checkup(nn.Linear(6, 3), loader, F.cross_entropy, experiments="none"),
    "data": lambda loader: lt.experiments.duplicates(loader),
}


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("stream", STREAMS)
def test_a_data_set_draws_on_from_where_it_was(stream: str, read: str) -> None:
    data, untouched = Noisy(STREAMS[stream]()), Noisy(STREAMS[stream]())
    READ[read](DataLoader(data, 16))
    assert data.transform.draw() == untouched.transform.draw()
