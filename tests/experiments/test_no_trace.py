"""No experiment moves anything of the user's, whatever it is asked with, and what cannot be asked is an answer."""

from __future__ import annotations

import copy
import random
import threading
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks.experiments.asking.registry import entries
from tests.experiments.asked import OF_DATA, ask

NAMES = [name for name in lt.experiments.__all__ if name != "share"]
# Of images, of words, of sequences, of trained norms, of numbers to predict.
OF_OTHERS = {"paired_transforms", "channel_axis", "token_ids", "padding", "input_statistics", "wrong_values"}
FORWARDS = [entry.name for entry in entries() if entry.cost == "forwards"]


class Noisy(nn.Module):
    """Draws from every stream, counts its calls, and has batch norm, dropout, a frozen part and one in eval mode."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)
        self.frozen, self.last = nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 3)
        self.frozen.eval()
        self.register_buffer("calls", torch.zeros(()))
        self.seen: list[int] = []

    def forward(self, x):
        self.calls += 1
        self.seen.append(len(x))
        x = x + random.random() + np.random.rand() + torch.rand(())
        return self.last(self.frozen(self.drop(self.norm(self.first(x)).relu())))


class Module(L.LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class ByHand(Module):
    def __init__(self, net):
        super().__init__(net)
        self.automatic_optimization = False


class Locked(Noisy):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def loader() -> DataLoader:
    generator = torch.Generator().manual_seed(3)
    data = TensorDataset(torch.randn(40, 6, generator=generator), torch.arange(40) % 3)
    return DataLoader(data, batch_size=8, shuffle=True, generator=generator)


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def failing(output: Any, target: Any) -> Any:
    raise RuntimeError("this loss fails")


KINDS = {
    "plain": (plain, F.cross_entropy),
    "noisy": (Noisy, F.cross_entropy),
    "lightning": (lambda: Module(plain()), None),
    "lightning, noisy": (lambda: Module(Noisy()), None),
    "by hand": (lambda: ByHand(plain()), None),
    "no copy": (Locked, F.cross_entropy),
    "failing loss": (plain, failing),
    "no loss": (plain, lambda output, target: None),
    "nothing to train": (lambda: plain().requires_grad_(False), F.cross_entropy),
}


def state(model: nn.Module, data: DataLoader) -> list[Any]:
    whole = [
        dict(model.state_dict()),
        [(id(p), p.grad, p.requires_grad) for p in model.parameters()],
        [part.training for part in model.modules()],
        [sorted(vars(part)) for part in model.modules()],
        getattr(model, "seen", None),
        data.generator.get_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state(),
        torch.is_grad_enabled(),
        [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()],
    ]
    return copy.deepcopy(whole)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_users_moves(name, kind):
    make, loss_fn = KINDS[kind]
    model, data = make(), loader()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = state(model, data)
    with torch.no_grad():
        found = ask(name, model, data, loss_fn)
    assert same(before, state(model, data))
    assert found.name == name
    assert found.answer
    assert all(isinstance(value, (int, float)) for value in found.numbers.values())


@pytest.mark.parametrize("kind", ["plain", "noisy", "lightning", "lightning, noisy", "by hand"])
def test_nor_in_a_checkup(kind):
    make, loss_fn = KINDS[kind]
    model, data, val_data = make(), loader(), loader()
    before = state(model, data), state(model, val_data)
    tried = lt.checkup(model, data, loss_fn, num_batches=2, experiments=FORWARDS, val_data=val_data).experiments
    assert same(before, (state(model, data), state(model, val_data)))
    assert {each.name for each in tried} == set(FORWARDS) - OF_OTHERS


class InTheMiddle(L.Callback):
    """Asks an experiment in every step."""

    def __init__(self, name):
        self.name, self.answers = name, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.name is not None:
            self.answers.append(ask(self.name, pl_module, [batch], None))


@pytest.mark.parametrize(
    "name",
    ["free_outputs", "reach", "own_input", "evaluation_gap", "validation_like_training", "memorise", "changes"],
)
def test_a_fit_goes_on_as_without(name, tmp_path):
    def weights(asked: str | None) -> tuple[list[torch.Tensor], list[Any]]:
        torch.manual_seed(0)
        module, callback = Module(plain()), InTheMiddle(asked)
        options = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        trainer = L.Trainer(
            max_steps=2, logger=False, accelerator="cpu", callbacks=[callback], default_root_dir=tmp_path, **options
        )
        trainer.fit(module, loader())
        return [p.detach() for p in module.parameters()], callback.answers

    (with_it, answers), (without, _) = weights(name), weights(None)
    assert same(with_it, without)
    assert all(answer.conclusive for answer in answers)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_DATA])
@pytest.mark.parametrize(
    ("kind", "reason"), [("no copy", "copied"), ("failing loss", "this loss fails"), ("by hand", "by hand")]
)
def test_what_cannot_be_asked_says_why(name, kind, reason):
    if (name, kind) == ("input_statistics", "failing loss"):
        reason = "a new one"  # the batch norm, before any loss is asked
    make, loss_fn = KINDS[kind]
    found = ask(name, make(), loader(), loss_fn)
    assert not found.conclusive
    assert reason in found.answer
