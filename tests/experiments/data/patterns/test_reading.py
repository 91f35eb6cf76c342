"""Whatever a loader gives is read, each pattern with its number, and nothing of the user's moves."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

import lightning_tricks.experiments.data.patterns.reading as reading
from lightning_tricks.experiments.data.patterns.reading import read
from lightning_tricks.experiments.preflight.patterns import NotAskedError

X, Y = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 3


class Stream(IterableDataset):
    def __iter__(self):
        return zip(X, Y, strict=True)


class Drawing(Dataset):
    """An augmentation that draws from streams of its own and from the global ones."""

    def __init__(self):
        self.numpy, self.python = np.random.default_rng(0), random.Random(0)
        self.torch = torch.Generator().manual_seed(0)

    def __len__(self):
        return 70

    def __getitem__(self, i):
        noise = self.numpy.normal() + self.python.random() + torch.randn((), generator=self.torch)
        return X[i] + noise + torch.rand(()) + random.random() + np.random.rand(), Y[i]

    def state(self):
        own = self.numpy.bit_generator.state, self.python.getstate(), self.torch.get_state().tolist()
        return own, torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


class Counting(BatchSampler):
    """One that knows how often it was asked."""

    epochs = 0

    def __iter__(self):
        self.epochs += 1
        return super().__iter__()


LOADERS = {
    "shuffled": DataLoader(TensorDataset(X, Y), 16, shuffle=True),
    "data set": TensorDataset(X, Y),
    "subset": DataLoader(Subset(TensorDataset(X, Y), range(200)), 16),
    "batches": [(X[i : i + 50], Y[i : i + 50]) for i in range(0, 200, 50)],
    "one batch": (X, Y),
    "dict": {"x": X, "label": Y},
    "stream": DataLoader(Stream(), 16),
    "numpy": (X.numpy(), Y),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_every_kind_is_read_in_its_order(kind):
    patterns = read(LOADERS[kind])
    assert torch.equal(patterns.inputs[0].values.float(), X)
    assert torch.equal(patterns.target.values, Y)
    assert patterns.index.tolist() == list(range(200))
    assert patterns.complete
    assert patterns.numbering.startswith("numbers" if kind in ("shuffled", "data set", "subset") else "positions")


def test_what_can_be_read_only_once_is_left_alone():
    stream = iter([(X, Y)])
    with pytest.raises(NotAskedError, match="only once"):
        read(stream)
    assert next(stream)[0] is X


def test_no_random_number_is_used_up():
    data = Drawing()
    loader = DataLoader(data, 8, shuffle=True, generator=torch.Generator().manual_seed(1))
    before = data.state(), loader.generator.get_state().tolist()
    assert len(read(loader)) == 70
    assert (data.state(), loader.generator.get_state().tolist()) == before


def test_a_sampler_of_ones_own_is_followed_in_a_copy():
    sampler = Counting([3, 3, 5, 9, 3], 2, False)
    loader = DataLoader(TensorDataset(X, Y), batch_sampler=sampler)
    patterns = read(loader)
    assert patterns.index.tolist() == [3, 5, 9]
    assert patterns.drawn.tolist() == [3, 1, 1]
    assert sampler.epochs == 0


def test_a_weighted_sampler_keeps_its_stream():
    sampler = WeightedRandomSampler(torch.ones(200), 40, generator=torch.Generator().manual_seed(0))
    before = sampler.generator.get_state()
    assert 1 < len(read(DataLoader(TensorDataset(X, Y), 8, sampler=sampler))) <= 40
    assert torch.equal(sampler.generator.get_state(), before)


def test_much_is_read_in_part_from_all_of_its_length(monkeypatch):
    monkeypatch.setattr(reading, "MOST_BYTES", 61 * 6 * 4)
    some = read(TensorDataset(X, Y))
    assert 61 <= len(some) < 200
    assert not some.complete
    few = read(TensorDataset(X, Y), most=20)
    assert len(few) == 20
    assert few.index.max() > 100
    assert torch.equal(few.inputs[0].values, X[few.index])


@pytest.mark.parametrize(
    ("batch", "inputs", "target"),
    [
        ((X, Y), ["0"], "1"),
        ({"image": X, "age": X[:, 0], "target": Y}, ["image", "age"], "target"),
        (({"a": X, "b": X}, Y), ["0.a", "0.b"], "1"),
        ({"label": Y, "x": X}, ["x"], "label"),
        ((X, {"value": X, "weight": Y}), ["0"], None),
        (X, ["0"], None),
    ],
)
def test_inputs_are_told_from_targets(batch, inputs, target):
    patterns = read([batch])
    assert [column.name for column in patterns.inputs] == inputs
    assert (patterns.target.name if patterns.target is not None else None) == target


def test_sequences_that_are_padded_batch_by_batch_keep_their_keys():
    batches = [(torch.tensor([[5, 6, 0], [7, 8, 9]]), Y[:2]), (torch.tensor([[5, 6], [1, 2]]), Y[2:4])]
    column = read(batches).inputs[0]
    assert column.values.shape == (4, 3)
    assert column.keys[0] == column.keys[2]
    assert len(set(column.keys.tolist())) == 3
    assert column.kind == "tokens"


def test_words_and_large_images():
    words = read([(["a", "b", "a"], Y[:3])])
    assert words.inputs[0].values.tolist()[0] == words.inputs[0].values.tolist()[2]
    images = read([(torch.rand(3, 3, 200, 160), Y[:3])]).inputs[0]
    assert images.kind == "image"
    assert not images.whole
    assert images.values.shape == (3, 3, 64, 64)


@pytest.mark.parametrize("time_first", [True, False])
def test_the_axis_of_patterns_is_found(time_first):
    def collate(samples):
        x = torch.stack([sample[0] for sample in samples])
        return x[:, :, None].transpose(0, 1) if time_first else x, torch.stack([sample[1] for sample in samples])

    values = read(DataLoader(TensorDataset(X, Y), 16, collate_fn=collate)).inputs[0].values
    assert torch.equal(values.reshape(200, 6), X)
