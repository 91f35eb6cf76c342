"""The doctor in a Trainer of transformers, where that is installed."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import lightning_tricks as lt
from tests.watch.loops import left_behind


@pytest.fixture
def _transformers():
    pytest.importorskip("transformers", reason="an optional dependency")
    pytest.importorskip("accelerate", reason="transformers' Trainer needs it")


class Network(nn.Module):
    def __init__(self, bias=0.0):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 3))
        nn.init.constant_(self.net[0].bias, bias)

    def forward(self, x, labels=None):
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Data(torch.utils.data.Dataset):
    def __init__(self):
        self.x = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        x = self.x[index]
        return {"x": x, "labels": int(x[0] > 0) + int(x[1] > 0)}


def fit(folder, *callbacks, bias=0.0, **arguments):
    import transformers

    torch.manual_seed(0)
    model = Network(bias)
    given = {
        "max_steps": 6,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "logging_steps": 4,
        "report_to": [],
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        **arguments,
    }
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(str(folder), **given),
        train_dataset=Data(),
        eval_dataset=Data(),
        callbacks=list(callbacks),
    )
    trainer.train()
    return model, trainer


@pytest.mark.usefixtures("_transformers")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_training_is_the_same_and_is_seen(tmp_path, accumulate):
    arguments = {"gradient_accumulation_steps": accumulate, "eval_strategy": "steps", "eval_steps": 3}
    plain, _ = fit(tmp_path, **arguments)
    callback = lt.TransformersDoctor(report=False, on_problem="log")
    model, trainer = fit(tmp_path, callback, **arguments)
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), model.parameters(), strict=True))
    assert [snapshot.step for snapshot in callback.doctor.history] == [0, 1, 2, 4]
    assert callback.doctor.step == 6
    history = callback.doctor.history
    assert [record.name for record in history[0].weighted] == ["net.0", "net.3"]
    assert all(0.1 < snapshot.loss < 3 for snapshot in history)
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert history[-1].validation_loss == losses[-1]
    assert callback.diagnosis.state in ("healthy", "unknown")
    assert left_behind(model, trainer.optimizer.optimizer) == []


@pytest.mark.usefixtures("_transformers")
@pytest.mark.filterwarnings("ignore")
def test_it_stops_the_trainer(tmp_path):
    callback = lt.TransformersDoctor(report=False, on_problem="stop", every_n_steps=1)
    _, trainer = fit(tmp_path, callback, bias=-100.0, max_steps=40)
    assert callback.diagnosis.state == "sick"
    assert trainer.state.global_step < 40


def test_without_transformers_an_error_says_what_to_install(monkeypatch):
    from lightning_tricks.callbacks import transformers_doctor

    transformers_doctor._with_transformers.cache_clear()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match="pip install 'transformers"):
        lt.TransformersDoctor()
    transformers_doctor._with_transformers.cache_clear()
