"""PreciseBatchNorm: exact statistics of the training data wherever the network is judged."""

import lightning.pytorch as L
import pytest
import torch
import torchmetrics
from lightning.pytorch.callbacks import ModelCheckpoint
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
        callbacks=[*callbacks], logger=False, enable_progress_bar=False, enable_model_summary=False,
        **{"accelerator": "cpu", "max_epochs": 2, "enable_checkpointing": False, **options},
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


@pytest.mark.filterwarnings("ignore")  # Lightning's, of folders and loaders
def test_a_training_that_is_taken_up_amid_an_epoch(tmp_path):
    saving = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    trainer(saving, enable_checkpointing=True, max_steps=2).fit(Normalised(), data())
    module = Normalised()
    trainer(lt.PreciseBatchNorm(), max_epochs=1).fit(module, data(), ckpt_path=tmp_path / "step=2.ckpt")
    check((module.net[0].running_mean, module.net[0].running_var))


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


def test_num_samples_counts_batches_that_are_mappings():
    class Mapped(Normalised):
        read = 0

        def loss(self, batch):
            self.read += not torch.is_grad_enabled()
            return super().loss((batch["inputs"]["x"], batch["y"]))

    x, y = data().dataset.tensors
    rows = [{"inputs": {"x": x[i], "name": f"row {i}"}, "y": y[i]} for i in range(200)]
    module = Mapped()
    callback = lt.PreciseBatchNorm(num_samples=64)
    trainer(callback, max_epochs=1).fit(module, DataLoader(rows, 32))
    assert module.read == 2
    assert callback.report.changed[0].values == {"values": 64, "batches": 2}


class Frozen(Normalised):
    """A pretrained batch norm that stays in eval mode, and one behind it that trains."""

    def __init__(self, how):
        super().__init__()
        self.net = nn.Sequential(nn.BatchNorm1d(6), nn.BatchNorm1d(6), nn.Linear(6, 3))
        self.net[0].running_mean.fill_(7.0)
        self.how = how
        if how != "on_train_epoch_start":
            self.train()

    def freeze(self):
        self.net[0].eval()

    def train(self, mode=True):
        super().train(mode)
        if self.how == "train":  # Lightning itself does not call this
            self.freeze()
        return self

    def on_train_epoch_start(self):
        if self.how == "on_train_epoch_start":
            self.freeze()


@pytest.mark.filterwarnings("ignore:Found 1 module")
@pytest.mark.parametrize("how", ["train", "on_train_epoch_start"])
def test_frozen_layers_stay_as_they_are(how):
    module, callback = Frozen(how), lt.PreciseBatchNorm()
    trained = trainer(callback, max_epochs=2)
    trained.fit(module, data(), data())
    trained.test(module, data(), verbose=False)
    assert [entry.layer for entry in callback.report.changed] == ["net.1"]
    assert (module.net[0].running_mean == 7).all()
    for frozen, _ in module.seen[2:]:
        assert (frozen == 7).all()
    met = module.net[0].eval()(data().dataset.tensors[0])
    torch.testing.assert_close(module.net[1].running_mean, met.mean(0), rtol=1e-4, atol=1e-4)


def test_layers_unfrozen_during_the_training_are_updated():
    class Thawing(Frozen):
        def on_train_epoch_start(self):
            self.net[0].train(self.current_epoch == 1)

    module, callback = Thawing(""), lt.PreciseBatchNorm()
    trainer(callback, max_epochs=2).fit(module, data(), data())
    assert [entry.layer for entry in callback.report.changed] == ["net.0", "net.1"]
    check((module.net[0].running_mean, module.net[0].running_var))


@pytest.mark.parametrize("cls", [lt.nn.GhostBatchNorm1d, lt.nn.BatchRenorm1d])
def test_replacing_our_layers_by_sync_batch_norm_is_an_error(cls):
    module, callback = Normalised(), lt.PreciseBatchNorm()
    module.net.append(nn.Sequential(nn.BatchNorm1d(3), cls(3)))
    callback.setup(None, module, "fit")
    callback.on_fit_start(None, module)
    nn.SyncBatchNorm.convert_sync_batchnorm(module)  # what Trainer(sync_batchnorm=True) does in between
    with pytest.raises(ValueError, match=r"sync_batchnorm=True. has replaced net.2.1 by .* synchronize=True"):
        callback.on_fit_start(None, module)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch's SyncBatchNorm needs a CUDA device")
def test_sync_batch_norm_asked_of_the_trainer():
    module = Normalised()
    module.net[0] = lt.nn.GhostBatchNorm1d(6)
    options = {"strategy": "ddp", "devices": 1, "accelerator": "gpu", "sync_batchnorm": True}
    with pytest.raises(ValueError, match=r"has replaced net.0 by"):
        trainer(lt.PreciseBatchNorm(), **options).fit(module, data())


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

    with pytest.raises(TypeError, match=r"Manual optimises manually.* give forward="):
        trainer(lt.PreciseBatchNorm(), max_epochs=1).fit(Manual(), data())
    module = Manual()
    trainer(lt.PreciseBatchNorm(forward=lambda m, batch: m.net(batch[0])), max_epochs=1).fit(module, data())
    check((module.net[0].running_mean, module.net[0].running_var))


def test_num_samples_has_to_be_positive():
    with pytest.raises(ValueError, match="num_samples must be at least 1, or None for all, got 0"):
        lt.PreciseBatchNorm(0)
