"""Draws: their size, their share of the patterns, what they depend on."""

import math

import pytest
import torch
from torch.utils.data import IterableDataset

from lightning_tricks.ensemble.data.data_module import bootstrap


def test_exact_size_and_share_of_unique_patterns():
    size = 5000
    sets = bootstrap(size, 20)
    assert sets.indices.shape == (20, size)
    chance = 1 - (1 - 1 / size) ** size
    assert float(sets.coverage.mean()) == pytest.approx(chance, abs=4 * 0.0046 / math.sqrt(20))  # sd of one: 0.0044
    assert abs(chance - 0.632) < 1e-3


def test_draws_are_uniform():
    counts = bootstrap(50, 2000).counts.sum(0).double()
    expected = 2000.0
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert 20 < chi2 < 90  # 49 degrees of freedom, mean 49, sd 10


def test_reproducible_and_independent_of_later_members():
    assert torch.equal(bootstrap(99, 3, seed=4).indices, bootstrap(99, 3, seed=4).indices)
    assert torch.equal(bootstrap(99, 8, seed=4).indices[:3], bootstrap(99, 3, seed=4).indices)
    rows = torch.cat([bootstrap(99, 8, seed=seed).indices for seed in (0, 1, 2)])
    assert len(rows.unique(dim=0)) == 24


def test_global_random_numbers_are_left_alone():
    before = torch.get_rng_state()
    bootstrap(10, 3)
    assert torch.equal(before, torch.get_rng_state())


def test_out_of_bag_is_what_is_not_drawn():
    sets = bootstrap(30, 4)
    for drawn, unseen in zip(sets.indices.tolist(), sets.out_of_bag, strict=True):
        assert set(unseen.nonzero().flatten().tolist()) == set(range(30)) - set(drawn)


@pytest.mark.parametrize(("max_samples", "size"), [(0.5, 20), (7, 7), (1.0, 40), (80, 80)])
def test_size_as_a_share_and_as_a_number(max_samples, size):
    assert bootstrap(40, 2, max_samples=max_samples).indices.shape == (2, size)


def test_without_replacement():
    sets = bootstrap(40, 3, replace=False)
    assert all(sorted(row) == list(range(40)) for row in sets.indices.tolist())
    assert not sets.out_of_bag.any()
    assert bootstrap(40, 3, replace=False, max_samples=0.5).counts.max() == 1


def test_subset_is_a_dataset():
    sets = bootstrap(list("abcdef"), 2)
    assert list(sets.subset(list("abcdef"), 1)) == ["abcdef"[index] for index in sets.indices[1]]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Stream(), 2), TypeError, "Stream has none"),
        (([], 2), ValueError, "is empty"),
        (([1], 0), ValueError, "at least 1, got 0"),
        (([1], True), ValueError, "got True"),
        (([1], 2, 0, 0.0), ValueError, "over 0 and at most 1, got 0.0"),
        (([1], 2, 0, 1.5), ValueError, "got 1.5"),
        (([1], 2, 0, 0), ValueError, "at least 1, got 0"),
        (([1], 2, 0, "all"), ValueError, "got 'all'"),
    ],
)
def test_errors(arguments, error, message):
    names = ("dataset", "num_members", "seed", "max_samples")
    with pytest.raises(error, match=message):
        bootstrap(**dict(zip(names, arguments, strict=False)))


def test_too_many_without_replacement():
    with pytest.raises(ValueError, match="draws without replacement from 3 patterns"):
        bootstrap(3, 2, max_samples=4, replace=False)
