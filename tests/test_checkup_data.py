"""A checkup takes data of every kind."""

import dataclasses

import lightning.pytorch as L
import pytest
import torch

import lightning_tricks as lt
from tests.callbacks.trainings import (
    Classifier,
    batches,
)
from tests.test_checkup import check, plain, steps


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@dataclasses.dataclass
class Pair:
    x: torch.Tensor
    y: torch.Tensor


class Module(L.LightningDataModule):
    def __init__(self, several=False):
        super().__init__()
        self.several, self.prepared = several, []

    def prepare_data(self):
        self.prepared.append("prepared")

    def setup(self, stage):
        self.prepared.append(stage)

    def train_dataloader(self):
        loader = torch.utils.data.DataLoader(batches(2), batch_size=None)
        return {"a": loader, "b": loader} if self.several else loader


DATA = {
    "loader": lambda: torch.utils.data.DataLoader(batches(3), batch_size=None),
    "list of batches": lambda: batches(3),
    "one tuple": lambda: batches(1)[0],
    "one list": lambda: list(batches(1)[0]),
    "one dict": lambda: {"x": batches(1)[0][0], "y": batches(1)[0][1]},
    "one dataclass": lambda: Pair(*batches(1)[0]),
    "dicts": lambda: [{"x": x, "y": y} for x, y in batches(3)],
    "dataclasses": lambda: [Pair(x, y) for x, y in batches(3)],
    "datamodule": Module,
    "generator": lambda: iter(batches(5)),
}


@pytest.mark.parametrize("kind", DATA)
def test_every_kind_of_data(kind):
    diagnosis = check(plain(), DATA[kind](), num_batches=5)
    assert steps(diagnosis) == [0, 1, 2, 3, 4]
    assert all(snapshot.activations[0].patterns == 8 for snapshot in diagnosis.history)


def test_data_modules():
    class Joint(Classifier):
        def training_step(self, batch, batch_idx):
            return sum(self.loss(part) for part in batch.values())

    data = Module(several=True)
    diagnosis = lt.checkup(Joint(plain()), data, num_batches=3)
    assert data.prepared == ["prepared", "fit"]
    assert [record.name for record in diagnosis.history[2].weighted] == ["net.0", "net.2", "net.0_2", "net.2_2"]
