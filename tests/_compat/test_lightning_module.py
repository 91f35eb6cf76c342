"""The short ways through Lightning's calls change nothing, also where Lightning has other names for what it sets."""

import threading

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F

import lightning_tricks as lt
from lightning_tricks._compat import lightning_module
from lightning_tricks._compat.lightning_module import LowOverheadModule, overrides
from lightning_tricks.ensemble.mapping import backend
from lightning_tricks.experiments.preflight import kept
from tests.callbacks import trainings
from tests.ensemble.trainings import Plain, difference, fit


@pytest.mark.parametrize("name", ["_current_fx_name", "_name_of_another_version"])
def test_a_training_with_either_name(monkeypatch, name):
    expected, _ = fit(Plain, "vmap")
    monkeypatch.setattr(lightning_module, "RUNNING_HOOK", name)
    monkeypatch.setattr(backend, "TRAINING_STATE", frozenset({"training", name}))
    found, _ = fit(Plain, "vmap")
    assert difference(found.networks, expected.networks) == 0.0


def test_attributes_are_set_as_by_the_base_class():
    module = LowOverheadModule()
    module._current_fx_name = "training_step"
    assert module._current_fx_name == "training_step"
    module.layer = torch.nn.Linear(2, 1)
    assert dict(module.named_children()).keys() == {"layer"}


def test_gradients_are_gone_after_zero_grad():
    module = LowOverheadModule()
    module.layer = torch.nn.Linear(2, 1)
    module.layer(torch.ones(1, 2)).sum().backward()
    module.optimizer_zero_grad(0, 0, torch.optim.SGD(module.parameters(), lr=0.1))
    assert all(value.grad is None for value in module.parameters())


def test_who_has_a_hook_of_its_own():
    class Data(L.LightningDataModule):
        def val_dataloader(self):
            return []

    assert overrides(Plain(), "training_step")
    assert not overrides(Plain(), "validation_step")
    assert overrides(Data(), "val_dataloader")
    assert not overrides(Data(), "train_dataloader")


def test_who_gives_the_hyperparameters(monkeypatch):
    from lightning.pytorch.core.mixins import hparams_mixin

    assert not lightning_module.hyperparameters_are_given()
    token = hparams_mixin._given_hyperparameters.set({"a": 1})
    assert lightning_module.hyperparameters_are_given()
    monkeypatch.delattr(hparams_mixin, "_given_hyperparameters")
    assert not lightning_module.hyperparameters_are_given()
    monkeypatch.undo()
    hparams_mixin._given_hyperparameters.reset(token)


def test_a_module_for_a_script_has_no_trainer():
    """Lightning's own mark for it; where that has another name, asking for a Trainer raises as ever."""
    module = lightning_module.scriptable(L.LightningModule())
    assert module.trainer is None
    del module.__dict__["_jit_is_scripting"]
    with pytest.raises(RuntimeError, match="not attached"):
        module.trainer  # noqa: B018
    assert lightning_module.trainer_of(module) is None


class NotCopied(trainings.Classifier):
    """Goes forward by itself, logs there, and holds what cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, x):
        self.log("mean", x.mean())
        return self.net(x)

    def loss(self, batch):
        return F.cross_entropy(self(batch[0]), batch[1])


@pytest.mark.parametrize("name", ["_trainer", "_name_of_another_version"])
def test_the_first_step_of_a_module_that_is_not_copied(monkeypatch, name):
    """It is run again with its Trainer out of reach; where that has another name it is not asked, and trains on."""
    monkeypatch.setattr(kept, "TRAINER", name)
    plain, watched = NotCopied(), NotCopied()
    watched.load_state_dict(plain.state_dict())
    doctor = lt.TrainingDoctor(every_n_steps=1, on_problem="log", report=False)
    trainings.fit(plain)
    trainer = trainings.fit(watched, [doctor])
    assert not doctor.errors.failed
    assert (doctor.history[0].preflight is None) == (name != "_trainer")
    assert watched.losses == plain.losses
    assert watched.trainer is trainer
