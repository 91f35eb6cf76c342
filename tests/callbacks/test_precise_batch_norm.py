"""PreciseBatchNorm: exact statistics of the training data wherever the network is judged."""

import lightning.pytorch as L
import pytest
import torch
import torchmetrics
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt

from .trainings import Classifier


def data(batch_size=32, **options):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator) * 3 + 5
    return DataLoader(TensorDataset(x, torch.randint(3, (200,), generator=generator)), batch_size, **options)


class Normalised(Classifier):
    """Remembers the running statistics that its validation meets."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3)))
        self.seen = []

    def validation_step(self, batch, batch_idx):
        self.seen.append((self.net[0].running_mean.clone(), self.net[0].running_var.clone()))

    test_step = validation_step


def trainer(*callbacks, **options):
    return L.Trainer(
        callbacks=[*callbacks], logger=False, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, **{"max_epochs": 2, **options},
    )  # fmt: skip


def exact():
    x = data().dataset.tensors[0].double()
    return x.mean(0), x.var(0)


def check(statistics):
    mean, variance = exact()
    torch.testing.assert_close(statistics[0].double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(statistics[1].double(), variance, rtol=1e-5, atol=1e-5)


def test_validation_and_test_meet_the_statistics_of_the_training_data():
    module, callback = Normalised(), lt.PreciseBatchNorm()
    trained = trainer(callback, num_sanity_val_steps=1)
    trained.fit(module, data(shuffle=True), data())
    assert len(module.seen) == 1 + 2 * 7
    with pytest.raises(AssertionError):
        check(module.seen[0])  # the sanity check comes before any training
    for statistics in module.seen[1:]:
        check(statistics)
    check((module.net[0].running_mean, module.net[0].running_var))
    assert [entry.layer for entry in callback.report.changed] == ["net.0"]


def test_the_training_itself_goes_on_as_without_it():
    """Running statistics are not used in training mode: the same losses, with the same random numbers."""

    class Trained(Normalised):
        def training_step(self, batch, batch_idx):
            kept = list(self.losses)
            loss = super().training_step(batch, batch_idx)
            self.losses = self.losses if loss.requires_grad else kept
            return loss

    losses = []
    for callbacks in ([], [lt.PreciseBatchNorm()]):
        torch.manual_seed(3)
        module = Trained()
        trainer(*callbacks).fit(module, data(shuffle=True), data())
        losses.append(torch.stack(module.losses))
        assert module.training
    assert torch.equal(*losses)


def test_num_samples_bounds_what_is_read():
    class Counting(Normalised):
        read = 0

        def loss(self, batch):
            self.read += not torch.is_grad_enabled()
            return super().loss(batch)

    module = Counting()
    trainer(lt.PreciseBatchNorm(num_samples=64), max_epochs=1).fit(module, data())
    assert module.read == 2


def test_metrics_of_the_training_step_count_nothing():
    class Measured(Normalised):
        def __init__(self):
            super().__init__()
            self.accuracy = torchmetrics.classification.MulticlassAccuracy(3)

        def training_step(self, batch, batch_idx):
            self.accuracy.update(self.net(batch[0]), batch[1])
            self.log("accuracy", self.accuracy)
            return super().training_step(batch, batch_idx)

        def on_train_epoch_end(self):
            self.counted = int(self.accuracy.tp.sum() + self.accuracy.fn.sum())

    module = Measured()
    trainer(lt.PreciseBatchNorm(), max_epochs=1).fit(module, data(), data())
    assert module.counted == 200


def test_a_test_without_training_data_warns():
    module = Normalised()
    with pytest.warns(UserWarning, match="no training data here"):
        trainer(lt.PreciseBatchNorm()).test(module, data(), verbose=False)


def test_manual_optimisation_asks_for_a_forward():
    class Manual(Normalised):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            optimizer.step()

    with pytest.raises(TypeError, match="Manual optimises manually.* give forward="):
        trainer(lt.PreciseBatchNorm(), max_epochs=1).fit(Manual(), data())
    module = Manual()
    trainer(lt.PreciseBatchNorm(forward=lambda m, batch: m.net(batch[0])), max_epochs=1).fit(module, data())
    check((module.net[0].running_mean, module.net[0].running_var))


def test_num_samples_has_to_be_positive():
    with pytest.raises(ValueError, match="num_samples must be at least 1, or None for all, got 0"):
        lt.PreciseBatchNorm(0)
