"""What is asked of data and of the entries of a batch: which are read, whether they repeat, how they are ordered."""

from __future__ import annotations

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

import lightning_tricks as lt
from lightning_tricks.experiments import batch_entries, batch_order, never_read, same_sample_twice
from lightning_tricks.experiments.asking.sampling import is_plain, spread_batches
from lightning_tricks.experiments.preflight.patterns import NotAskedError

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(120, 6, generator=GENERATOR), torch.arange(120) // 30


class Reads(nn.Module):
    """A network that reads some features, and another entry of the batch or not."""

    def __init__(self, features, *, normed=False):
        super().__init__()
        self.features, self.layer, self.normed = features, nn.Linear(len(features), 3), normed

    def forward(self, x):
        x = self.layer(x[:, self.features])
        return x.softmax(1) if self.normed else x


@pytest.mark.parametrize("normed", [False, True], ids=["logits", "softmax"])
def test_features_that_are_never_read(normed):
    found = never_read(Reads([0, 2, 3], normed=normed), (X[:16], Y[:16] % 3), F.cross_entropy)
    assert found.numbers == {"features": 6, "never_read": 3}
    assert found.answer.endswith(": 1, 4, 5")


def test_all_features_of_a_plain_network_are_read():
    assert never_read(nn.Linear(6, 3), (X[:16], Y[:16] % 3), F.cross_entropy).numbers["never_read"] == 0


def test_an_entry_that_the_loss_forgets():
    batch = X[:16], {"value": X[:16, :1], "mask": (X[:16, 0] > 0).float(), "same": torch.ones(16)}

    def with_mask(output, target):
        return ((output - target["value"]).square() * target["mask"][:, None]).mean()

    def without(output, target):
        return F.mse_loss(output, target["value"])

    assert batch_entries(nn.Linear(6, 1), batch, with_mask).numbers["1.mask"] > 0
    found = batch_entries(nn.Linear(6, 1), batch, without)
    assert found.numbers["1.mask"] == 0
    assert found.numbers["1.value"] > 0
    assert "1.same" not in found.numbers  # it is the same for all patterns: no exchange tells
    assert found.answer == "not on 1.mask"


class Changing(Dataset):
    """A data set that changes what it gives: its inputs in place, or its targets."""

    def __init__(self, inputs=False, targets=False):
        self.x, self.inputs, self.targets = X.clone(), inputs, targets

    def __len__(self):
        return 20

    def __getitem__(self, i):
        if self.inputs:
            self.x[i] *= 2
        return self.x[i], torch.rand(()) if self.targets else torch.tensor(1.0)


def test_samples_that_change():
    assert same_sample_twice(Changing()).numbers["differ"] == 0
    scaled = same_sample_twice(Changing(inputs=True)).numbers
    assert (scaled["differ"], scaled["targets_differ"], scaled["change"]) == (8, 0, 1)
    drawn = same_sample_twice(DataLoader(Changing(targets=True), 4)).numbers
    assert drawn["targets_differ"] == 8


@pytest.mark.parametrize("data", [[(X, Y)], (X, Y), {"x": X}], ids=["batches", "batch", "dict"])
def test_without_indices_nothing_is_read_twice(data):
    assert not same_sample_twice(data).conclusive


def loader(*, shuffle=False, targets=Y, **options):
    generator = torch.Generator().manual_seed(1)
    return DataLoader(TensorDataset(X, targets), 10, shuffle=shuffle, generator=generator, **options)


def test_the_order_of_batches():
    assert batch_order(loader()).numbers["lacking"] > 0.9
    assert abs(batch_order(loader(shuffle=True)).numbers["lacking"]) < 0.3
    assert batch_order(loader(targets=X[:, 0].sort()[0])).numbers["within"] < 0.1
    assert batch_order(loader(targets=X[:, 0])).numbers["within"] > 0.5
    assert not batch_order([(X, Y)]).conclusive


class Classifier(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_checkup_says_that_the_data_come_sorted(shuffle):
    diagnosis = lt.checkup(Classifier(), loader(shuffle=shuffle), experiments="batch_order")
    found = [each for each in diagnosis.findings if each.problem == "unshuffled_data" and each.rank]
    assert bool(found) is not shuffle
    for finding in found:
        assert "shuffle=True" in finding.remedies[0].text
        assert finding.proof == diagnosis.experiments[0]


def test_who_has_a_sampler_wants_it_so():
    one_class = WeightedRandomSampler((Y == 1).float(), 120)
    given = DataLoader(TensorDataset(X, Y), 10, sampler=one_class)
    assert lt.checkup(Classifier(), given, experiments="batch_order").experiments == []


def test_batches_from_all_over_the_data():
    whole = loader()
    state = whole.generator.get_state()
    for x, y in spread_batches(whole, 3, 20):
        assert len(x) == len(y) == 20
        assert len(y.unique()) > 2
    assert torch.equal(whole.generator.get_state(), state)
    assert is_plain(whole)
    assert spread_batches([(X, Y)], 4) == [(X, Y)]
    assert len(spread_batches(((X[:5], Y[:5]) for _ in range(9)), 4)) == 4
    assert spread_batches(X, 2)[0] is X


@pytest.mark.parametrize("data", [[], 3])
def test_no_batches(data):
    with pytest.raises(NotAskedError):
        spread_batches(data, 2)
