"""The short ways through Lightning's calls change nothing, also where Lightning has other names for what it sets."""

import lightning.pytorch as L
import pytest
import torch

from lightning_tricks._compat import lightning_module
from lightning_tricks._compat.lightning_module import LowOverheadModule, overrides
from lightning_tricks.ensemble.mapping import backend
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
