"""Members, and K separate fits on the same draws to compare an ensemble with."""

import logging

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassAccuracy

import lightning_tricks.ensemble as le
from lightning_tricks.ensemble.data.bootstrap import seeds
from lightning_tricks.ensemble.data.loader import MemberLoader, MemberOrder

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
DOUBLE = torch.float64


def data(size=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 6, generator=generator, dtype=DOUBLE)
    return TensorDataset(x, torch.randint(3, (size,), generator=generator))


def network(dropout=0.0):
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)
    ).double()


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.02)


class Plain(L.LightningModule):
    """The plainest member; ``optimizer`` is a function of the parameters."""

    def __init__(self, net=None, optimizer=None):
        super().__init__()
        self.net = net or network()
        self.optimizer = optimizer or adam

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return self.optimizer(self.parameters())


class Smooth(Plain):
    """No batch norm: no biases whose gradient is rounding noise, which some optimisers blow up."""

    def __init__(self, optimizer=None):
        super().__init__(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double(), optimizer)


class Rich(Plain):
    """Logs, measures, has parameter groups and a schedule per step."""

    def __init__(self, net=None):
        super().__init__(net)
        self.accuracy = MulticlassAccuracy(3, average="micro")
        self.val_accuracy = MulticlassAccuracy(3, average="micro")

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        loss = F.cross_entropy(logits, y) + 0.001 * self.current_epoch
        self.accuracy(logits, y)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
        self.log_dict({"lowest": logits.min(), "constant": 3.0})
        return {"loss": loss}

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.val_accuracy.update(self(x), y)
        self.log("val_loss", F.cross_entropy(self(x), y))
        self.log("val_accuracy", self.val_accuracy)

    def configure_optimizers(self):
        weights = [value for value in self.parameters() if value.dim() > 1]
        others = [value for value in self.parameters() if value.dim() == 1]
        groups = [{"params": weights, "weight_decay": 0.1}, {"params": others, "lr": 0.01, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [0.02, 0.01], total_steps=self.trainer.estimated_stepping_batches
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def trainer(**options):
    settings = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return L.Trainer(**{**settings, **options})


def fit(make_member, backend="auto", num_members=3, dataset=None, ckpt_path=None, val=None, bagging=None, **options):
    """An ensemble after its fit, and its trainer."""
    bagging = bagging or {}
    ensemble = le.BaggingEnsemble(make_member, num_members, task="classification", backend=backend, seed=5, **bagging)
    module = le.BootstrapDataModule(dataset or data(), num_members, 16, seed=2, val_dataset=val)
    run = trainer(**options)
    torch.manual_seed(0)
    run.fit(ensemble, module, ckpt_path=ckpt_path)
    return ensemble, run


class _Own:
    """One member's batches."""

    def __init__(self, loader, member):
        self.loader, self.member, self.sampler = loader, member, loader.sampler

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        return ([part[self.member] for part in batch] for batch in self.loader)


def separate(make_member, num_members=3, dataset=None, val=None, callbacks=None, **options):
    """K modules, each trained by a Trainer of its own on the draws and from the weights of the ensemble's member.

    ``callbacks(k)`` makes those of the k-th Trainer.
    """
    dataset = dataset or data()
    trained, runs = [], []
    for number, seed in enumerate(seeds(5, num_members)):
        torch.manual_seed(seed)
        member = make_member()
        order = MemberOrder(le.bootstrap(dataset, num_members, 2), 16, 2)
        run = trainer(**options, callbacks=callbacks(number) if callbacks else None)
        loaders = (_Own(MemberLoader(dataset, order), number), *([] if val is None else [val]))
        run.fit(member, *loaders)
        trained.append(member)
        runs.append(run)
    return trained, runs


def difference(members, others):
    """The largest difference of any number in the weights and buffers of two lists of modules."""
    return max(
        float((one[name].double() - two[name].double()).abs().max())
        for one, two in zip(map(nn.Module.state_dict, members), map(nn.Module.state_dict, others), strict=True)
        for name in one
    )
