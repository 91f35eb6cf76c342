"""A checkup reads the data once, names what it finds with the patterns, and shows them; healthy ones stay healthy."""

from __future__ import annotations

import json
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks.diagnosis.experiment import Example
from lightning_tricks.experiments.asking.registry import entries
from lightning_tricks.experiments.data.patterns import neighbours
from lightning_tricks.report.html.page import html

NAMES = lt.experiments.data.__all__
G = torch.Generator().manual_seed(0)
Y = torch.arange(600) % 3
X = 0.2 * torch.randn(600, 1, 8, 8, generator=G)
X[torch.arange(600), 0, 2 * Y, :] += 1.0


class Counted(TensorDataset):
    reads = 0

    def __getitems__(self, indices):
        Counted.reads += len(indices)
        return [self[i] for i in indices]

    def __getitem__(self, i):
        return super().__getitem__(i)


def checked(y=Y, x=X, experiments=NAMES):
    def loader(part):
        return DataLoader(Counted(x[part], y[part]), 30, shuffle=True)

    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3))
    data, val_data = loader(slice(0, 450)), loader(slice(450, 600))
    Counted.reads = 0
    return lt.checkup(net, data, F.cross_entropy, num_batches=2, experiments=experiments, val_data=val_data)


def test_healthy_data_stay_healthy():
    diagnosis = checked()
    assert diagnosis.healthy
    assert [each.name for each in diagnosis.experiments if not each.conclusive] == []
    assert Counted.reads <= 600 + 2 * 450  # once, and what the steps read


def test_wrong_labels_are_named_and_shown():
    y = torch.where(torch.arange(600) % 12 == 0, (Y + 1) % 3, Y)
    diagnosis = checked(y)
    (finding,) = [each for each in diagnosis.findings if each.rank]
    assert finding.problem == "target_mismatch"
    assert finding.proof.name == "wrong_labels"
    assert "numbers in the data set" in finding.proof.answer
    assert all(each.index % 12 == 0 for each in finding.proof.examples[:10])
    page = html(diagnosis)
    assert page.count('<img src="data:image/png;base64,') == 12
    assert "img-src data:" in page
    assert f"training {finding.proof.examples[0].index}" in page
    stored = {each["name"]: each for each in json.loads(json.dumps(diagnosis.to_dict()))["experiments"]}
    assert stored["wrong_labels"]["examples"][0]["part"] == "training"


@pytest.mark.parametrize("picture", ["https://elsewhere/x.png", 'data:image/png;base64,"><script>', "javascript:1"])
def test_a_page_shows_only_pictures_that_it_holds(picture):
    example = Example(3, "<b>odd</b>", picture=picture)
    made = lt.Experiment("scales", "Is it?", "yes", examples=[example])
    page = html(lt.Diagnosis(experiments=[made]))
    assert "elsewhere" not in page
    assert "javascript" not in page
    assert page.count("<script") == 1
    assert "&lt;b&gt;odd" in page


def test_data_that_are_read_only_once_are_those_of_the_steps():
    batches = iter([(X[i : i + 60], Y[i : i + 60]) for i in range(0, 600, 60)])
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    diagnosis = lt.checkup(net, batches, F.cross_entropy, num_batches=4, experiments="classes")
    assert diagnosis.experiments[0].numbers["classes"] == 3


def test_data_that_cannot_be_read_are_an_answer(monkeypatch):
    def failing(*args, **kwargs):
        raise OSError("no such file")

    monkeypatch.setattr(neighbours, "read", failing)
    assert [each.conclusive for each in checked(experiments=NAMES).experiments] == [False] * (len(NAMES) - 2)


@pytest.mark.parametrize("mixed", [True, False])
def test_labels_of_other_inputs_are_a_doubt_and_no_alarm(mixed):
    y = Y[torch.randperm(600, generator=torch.Generator().manual_seed(3))] if mixed else Y
    data = [(X[i : i + 60], y[i : i + 60]) for i in range(0, 600, 60)]
    made = {"wrong_labels": lt.experiments.wrong_labels(data), "changes": lt.Experiment("changes", "", "none")}
    entry = next(each for each in entries() if each.name == "learnable")
    found = entry.run(types.SimpleNamespace(data=data, done=made))
    assert bool(found.doubt) is mixed
    assert not entry.run(types.SimpleNamespace(data=data, done={})).doubt
