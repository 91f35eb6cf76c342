"""Batches are read once, over the whole epoch, and what is held back is not trained on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_tricks.experiments.arms.batches import MOST_BATCHES, Batches, concatenated
from lightning_tricks.experiments.patterns import NotAskedError


def loader(count: int = 160, **options: Any) -> DataLoader[Any]:
    x = torch.arange(count, dtype=torch.float32)
    return DataLoader(TensorDataset(x[:, None], x), 8, **options)


def numbers(batches: list[Any]) -> Tensor:
    return torch.cat([batch[1] for batch in batches])


def test_those_held_back_are_spread_and_apart() -> None:
    batches = Batches.of(loader())
    held, train = numbers(batches.held), numbers(batches.train)
    assert set(held.tolist()).isdisjoint(train.tolist())
    assert len(held) + len(train) == 160
    assert held.min() < 40
    assert held.max() > 120
    assert torch.equal(train, train.sort().values)  # the loader's order
    assert not batches.shuffles


def test_a_loader_that_draws_with_repetition_leaks_nothing() -> None:
    x = torch.arange(40.0)
    drawn = [x[torch.randint(40, (8,), generator=torch.Generator().manual_seed(k))] for k in range(30)]
    batches = Batches.of([(each[:, None], each) for each in drawn])
    assert set(numbers(batches.held).tolist()).isdisjoint(numbers(batches.train).tolist())


def test_of_one_batch_nothing_is_held_back() -> None:
    batch = torch.zeros(4, 2), torch.zeros(4)
    batches = Batches.of(batch)
    assert len(batches.train) == len(batches.held) == 1
    assert not batches.apart


def test_a_long_epoch_is_read_all_over() -> None:
    batches = Batches.of(loader(8 * (MOST_BATCHES + 800)))
    train = numbers(batches.train)
    assert len(batches.train) + len(batches.held) == MOST_BATCHES
    assert train.min() < 100
    assert train.max() > 8 * (MOST_BATCHES + 700)
    assert torch.equal(train, train.sort().values)


def test_little_time_is_little_data() -> None:
    assert len(Batches.of(loader(), seconds=0.0).train) == 1


def test_the_loaders_stream_stays() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert Batches.of(loader(shuffle=True, generator=generator)).shuffles
    assert torch.equal(before, generator.get_state())


def test_shuffled_are_the_same_patterns_mixed() -> None:
    batches = Batches.of(loader())
    mixed = batches.shuffled()
    assert torch.equal(numbers(mixed.train).sort().values, numbers(batches.train))
    assert [len(batch[0]) for batch in mixed.train] == [len(batch[0]) for batch in batches.train]
    assert all(torch.equal(x[:, 0], y) for x, y in mixed.train)
    assert numbers(mixed.train[:1]).std() > 20


def test_the_stream_goes_round_and_begins_elsewhere_for_each_seed() -> None:
    batches = Batches.of(loader())
    first, other = batches.stream(0), batches.stream(1)
    assert next(first) is batches.train[0]
    assert next(other) is not batches.train[0]
    round_again = [next(first) for _ in range(len(batches.train))]
    assert round_again[-1] is batches.train[0]


def test_what_is_no_plain_tensors_is_not_put_together() -> None:
    with pytest.raises(NotAskedError, match="cannot be put together"):
        concatenated([(torch.zeros(2, 3), "a"), (torch.zeros(2, 3), "b")])
    with pytest.raises(NotAskedError, match="no batch"):
        Batches.of([])
