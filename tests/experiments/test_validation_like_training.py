"""validation_like_training: other scales, other steps, and what is no fault."""

from __future__ import annotations

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks.experiments import validation_like_training


def data(scale: float = 1.0, offset: int = 0, seed: int = 0, size: int = 10) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(200) % 2
    x = torch.randn(200, 6, generator=generator) + 2.0 * y[:, None]
    return DataLoader(TensorDataset(scale * x, y + offset), size)


class Module(L.LightningModule):
    def __init__(self, reduction="mean", factor=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
        self.reduction, self.factor = reduction, factor

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1], reduction=self.reduction)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self.net(self.factor * batch[0]), batch[1], reduction=self.reduction))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.05)


def alarms(module: nn.Module, val_data: DataLoader) -> list[lt.Finding]:
    tried = ["free_outputs", "validation_like_training"]
    diagnosis = lt.checkup(module, data(), experiments=tried, val_data=val_data)
    return [each for each in diagnosis.findings if each.problem == "validation_mismatch" and each.rank]


def test_alike_is_alike():
    numbers = validation_like_training(Module(), data(), val_data=data(seed=1)).numbers
    assert abs(numbers["gap"]) < 0.2
    assert numbers["same_batch"] == pytest.approx(numbers["by_validation_step"])
    assert not alarms(Module(), data(seed=1))


def test_another_scale_is_named_with_its_remedy():
    (finding,) = alarms(Module(), data(16.0, seed=1))
    assert finding.layer == "net.0"
    assert "x = x / 1" in finding.remedies[0].text
    assert finding.proof is not None
    assert finding.proof.numbers["gap"] > 0.3


@pytest.mark.parametrize("size", [10, 50])
def test_sums_over_batches_of_another_size_are_no_gap(size):
    assert not alarms(Module("sum"), data(seed=1, size=size))


def test_classes_that_are_not_those_of_the_training_are_there_by_design():
    assert not alarms(Module(), data(offset=2, seed=1))


def test_a_step_that_runs_something_else_shows_on_the_same_batch():
    numbers = validation_like_training(Module(factor=30.0), data(), val_data=data(seed=1)).numbers
    assert numbers["by_validation_step"] != pytest.approx(numbers["same_batch"], rel=0.1)


def test_without_validation_data_it_is_not_asked():
    assert not validation_like_training(Module(), data()).conclusive
    tried = lt.checkup(Module(), data(), num_batches=2, experiments="auto").experiments
    assert "validation_like_training" not in {each.name for each in tried}


class Both(L.LightningDataModule):
    def train_dataloader(self):
        return data()

    def val_dataloader(self):
        return data(16.0, seed=1)


class TrainingOnly(L.LightningDataModule):
    def train_dataloader(self):
        return data()


def test_a_data_module_brings_its_own_validation():
    diagnosis = lt.checkup(Module(), Both(), experiments="validation_like_training")
    assert [each.problem for each in diagnosis.findings if each.rank] == ["validation_mismatch"]
    assert lt.checkup(Module(), TrainingOnly(), experiments="validation_like_training").experiments == []
