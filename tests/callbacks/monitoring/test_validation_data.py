"""What the first validation gives the network is counted as it is, once, and without a trace."""

from __future__ import annotations

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

import lightning_tricks as lt
from lightning_tricks.callbacks.monitoring.checkpoints import restore, state_of
from lightning_tricks.callbacks.monitoring.validation_data import ValidationData, ValidationSums
from lightning_tricks.stats import MomentSums, to_host
from tests.callbacks.trainings import Classifier, Functional, batches, fit, mlp, same

TRAIN, VALIDATION = batches(8), [(4 * x + 3, y) for x, y in batches(5, seed=2)]


class Validated(Classifier):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", self.loss(batch))


def record_of(module, data=TRAIN, validation=VALIDATION, **options):
    monitor = lt.ActivationMonitor(every_n_steps=1)
    fit(module, [monitor], data, validation=validation, **{"num_sanity_val_steps": 0, **options})
    found = [snapshot.validation for snapshot in monitor.history if snapshot.validation is not None]
    assert len(found) <= 1
    return found[0] if found else None


def loader(data, *, size=8, **options):
    x, y = (torch.cat(each) for each in zip(*data, strict=True))
    return DataLoader(TensorDataset(x, y), size, **options)


def test_moments_of_both():
    record = record_of(Validated(), max_epochs=2)
    assert (record.layer, record.looks, record.channels) == ("net.0", 8, tuple(range(6)))
    for moments, data in ((record.training, TRAIN), (record.validation, VALIDATION)):
        x = torch.cat([x for x, _ in data])
        assert moments.patterns == len(x)
        assert moments.mean == pytest.approx(x.mean(0).tolist(), abs=1e-6)
        assert moments.std == pytest.approx(x.std(0, correction=0).tolist(), rel=1e-5)
        assert moments.center == pytest.approx(x.mean().item(), abs=1e-5)
        assert moments.spread == pytest.approx(x.std(correction=0).item(), rel=1e-5)


def test_as_the_network_receives_it():
    class Normalising(Validated):
        def validation_step(self, batch, batch_idx):
            super().validation_step(((batch[0] - 3) / 4, batch[1]), batch_idx)

    x = torch.cat([x for x, _ in VALIDATION])
    assert record_of(Normalising()).validation.center == pytest.approx(((x - 3) / 4).mean().item(), abs=1e-5)


def test_images_by_channel_and_many_features_by_some():
    network = nn.Sequential(nn.Unflatten(1, (2, 3, 1)), nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))
    record = record_of(Validated(network))
    x = torch.cat([x for x, _ in VALIDATION]).view(-1, 2, 3)
    assert record.layer == "net.1"
    assert record.validation.mean == pytest.approx(x.mean((0, 2)).tolist(), rel=1e-5)

    def wide(data):
        return [(torch.arange(200.0).repeat(len(x), 1) + x[:, :1], y) for x, y in data]

    record = record_of(Validated(nn.Sequential(nn.Linear(200, 3))), wide(TRAIN), wide(VALIDATION))
    assert record.channels == tuple(range(0, 200, 5))
    first = torch.cat([x[:, 0] for x, _ in VALIDATION])
    assert record.validation.mean == pytest.approx([first.mean().item() + k for k in record.channels], rel=1e-4)


def test_classes_are_counted_in_the_batch():
    wanted = torch.cat([y for _, y in VALIDATION]).bincount(minlength=3)
    record = record_of(Validated(), loader(TRAIN, shuffle=True), loader(VALIDATION))
    assert record.class_counts == tuple(wanted.tolist())
    assert record.whole
    assert not record.resampled


class Ignoring(Validated):
    def loss(self, batch):
        x, y = batch
        return F.cross_entropy(self.net(x), y, ignore_index=1)


class Mixing(Validated):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), 0.9 * F.one_hot(y, 3) + 0.05)


class Shifting(Validated):
    def loss(self, batch):
        return super().loss((batch[0], (batch[1] + 1) % 3))


@pytest.mark.parametrize("module", [Mixing, Shifting])
def test_targets_that_are_made_of_the_batch_are_not_counted(module):
    assert record_of(module()).class_counts == ()


def test_ignored_classes_and_batches_of_another_kind():
    assert record_of(Ignoring()).class_counts[1] == 0
    assert record_of(Ignoring()).class_counts[0] > 0

    class Indexed(Validated):
        def validation_step(self, batch, batch_idx):
            super().validation_step((batch[0], batch[2]), batch_idx)

    indexed = [(x, torch.arange(len(x)), y) for x, y in VALIDATION]
    assert record_of(Indexed(), validation=indexed).class_counts == ()


def test_what_makes_classes_count_otherwise():
    weighted = WeightedRandomSampler([1.0] * 64, 64)
    assert record_of(Validated(), loader(TRAIN, sampler=weighted), loader(VALIDATION)).resampled
    assert record_of(Validated(), loader(TRAIN), loader(VALIDATION), limit_val_batches=2).whole is False

    class Balancing(Validated):
        def loss(self, batch):
            return F.cross_entropy(self.net(batch[0]), batch[1], torch.tensor([1.0, 2.0, 3.0]))

    assert record_of(Balancing(), loader(TRAIN), loader(VALIDATION)).resampled


def test_first_pass_after_three_looks_only():
    hooked = []

    class Counting(Validated):
        def on_validation_batch_start(self, batch, batch_idx):
            if not batch_idx:
                hooked.append(len(self.net[0]._forward_pre_hooks))

    module, monitor = Counting(), lt.ActivationMonitor(every_n_steps=1)
    fit(module, [monitor], TRAIN, validation=VALIDATION, val_check_interval=2)
    assert hooked == [0, 0, 1, 0, 0]  # the sanity check, then after two steps, four, six and eight
    assert [s.step for s in monitor.history if s.validation is not None] == [3]
    assert next(s.validation for s in monitor.history if s.validation is not None).looks == 4
    assert not module.net[0]._forward_pre_hooks


def test_only_the_first_of_several_loaders():
    other = [(x + 100, y) for x, y in VALIDATION]
    record = record_of(Validated(), validation=[loader(VALIDATION), loader(other)])
    assert record.validation.patterns == 40
    assert record.validation.center < 10


def test_nothing_without_a_validation_or_a_layer_of_torchs():
    assert record_of(Classifier(), validation=None) is None
    assert record_of(Validated(nn.Sequential(nn.BatchNorm1d(6), mlp()))).layer is None

    class Own(nn.Linear):
        def forward(self, x):
            return F.linear(2 * x, self.weight, self.bias)

    assert record_of(Validated(Own(6, 3))).layer is None


def test_an_error_in_a_validation_leaves_no_hook():
    class Failing(Validated):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            if not self.trainer.sanity_checking:
                assert self.net[0]._forward_pre_hooks
                raise ZeroDivisionError

    module = Failing()
    with pytest.raises(ZeroDivisionError):
        record_of(module)
    assert not module.net[0]._forward_pre_hooks


@pytest.mark.parametrize("kind", [mlp, lambda: torch.compile(mlp(), backend="eager")], ids=["plain", "compiled"])
def test_a_training_is_the_same_with_it(kind):
    class Drawing(Validated):
        def validation_step(self, batch, batch_idx):
            self.seen = [*getattr(self, "seen", []), self.loss(batch), torch.rand(1)]

    torch.manual_seed(3)
    plain = Drawing(kind())
    watched = Drawing(kind())
    watched.load_state_dict(plain.state_dict())
    for module, callbacks in ((plain, []), (watched, [lt.TrainingDoctor(every_n_steps=1, on_problem="log")])):
        fit(module, callbacks, TRAIN, validation=VALIDATION, max_epochs=2)
    assert same(plain.state_dict(), watched.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(plain.seen, watched.seen, strict=True))


def test_stored_thinned_and_taken_up_again(tmp_path):
    monitor = lt.ActivationMonitor(every_n_steps=1)
    fit(Validated(), [monitor], TRAIN, validation=VALIDATION)
    (record,) = [s.validation for s in monitor.history if s.validation is not None]
    other = lt.ActivationMonitor(every_n_steps=1)
    restore([other], pickle.loads(pickle.dumps(state_of([monitor]))))
    assert other.history[-1].validation == record
    other.on_validation_data(record_of(Validated(), validation=TRAIN))
    assert other.history[-1].validation == record


def test_functional_layers_are_no_hindrance():
    class Both(Functional):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.loss(batch))

    assert record_of(Both()).layer == "net"


def test_the_sums_of_processes_add_up():
    counting = ValidationData()
    x, y = torch.randn(12, 3), torch.tensor([0, 1, 1, 2])
    parts = [
        ValidationSums(MomentSums.of(rows, 0), numbers.bincount(minlength=3))
        for rows, numbers in ((x[:4], y[:1]), (x[4:], y[1:]))
    ]
    on_host = [part.with_arrays(iter(to_host(part.arrays()))) for part in parts]
    counting._layer = ("net.0", 3)
    record = counting.record([None, *on_host])
    assert record.validation.mean == pytest.approx(x.mean(0).tolist())
    assert record.validation.std == pytest.approx(x.std(0, correction=0).tolist())
    assert record.class_counts == (1, 2, 1)
    assert counting.record([None, None]) is None
