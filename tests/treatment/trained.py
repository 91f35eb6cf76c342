"""Networks, trainings and shortened trials for the tests of treatments; everything of a model, to be compared."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_tricks.experiments.arms import ARMS
from lightning_tricks.experiments.arms.kinds.rates import RATES


def digits() -> tuple[Tensor, Tensor]:
    """Ten clouds that overlap little, so that everything healthy learns them."""
    generator = torch.Generator().manual_seed(0)
    centres = 1.2 * torch.randn(10, 20, generator=generator)
    y = torch.arange(800) % 10
    return centres[y] + torch.randn(800, 20, generator=generator), y


X, Y = digits()
TREAT = importlib.import_module("lightning_tricks.treatment.treat")
TRAINING_RUN = importlib.import_module("lightning_tricks.experiments.arms.training_run")
TRIALS = importlib.import_module("lightning_tricks.experiments.arms.trials")


def loader(**options: Any) -> DataLoader[Any]:
    options = {"shuffle": True, "generator": torch.Generator().manual_seed(1), **options}
    return DataLoader(TensorDataset(X, Y), 32, **options)


class Lit(L.LightningModule):
    def __init__(self, net: nn.Module, lr: float = 0.01) -> None:
        super().__init__()
        self.net, self.lr = net, lr

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), self.lr)


def mlp(activation: Callable[[], nn.Module] = nn.ReLU, depth: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for k in range(depth):
        layers += [nn.Linear(20 if k == 0 else 32, 32), activation()]
    return nn.Sequential(*layers, nn.Linear(32, 10))


def constant(net: nn.Module) -> nn.Module:
    """All units of a layer the same: no training tells them apart."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.05 if parameter.dim() > 1 else 0.0)
    return net


def lengths(monkeypatch: pytest.MonkeyPatch, sort: int, declare: int) -> None:
    monkeypatch.setattr(TRIALS, "SORT", sort)
    monkeypatch.setattr(TRIALS, "DECLARE", declare)
    monkeypatch.setattr(TRAINING_RUN, "EVERY", 20)


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """So few arms and steps, to save time."""
    lengths(monkeypatch, 20, 40)
    monkeypatch.setattr(TREAT, "ARMS", tuple(arm for arm in ARMS if arm.name in names))
    monkeypatch.setattr(TRIALS, "RATES", tuple(name for name in RATES if name in names))


def fit(module: L.LightningModule, epochs: int = 3, *callbacks: L.Callback) -> L.Trainer:
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader())
    return trainer


def accuracy(net: nn.Module) -> float:
    with torch.no_grad():
        return float((net.eval()(X).argmax(1) == Y).float().mean())


class Whole:
    """Everything of a model and the streams around it, to be compared."""

    def __init__(self, model: nn.Module, *loaders: Any) -> None:
        self.model, self.loaders = model, loaders
        self.before = self.now()

    def now(self) -> list[Any]:
        modules = list(self.model.named_modules())
        tensors = [(n, id(t), t.detach().clone(), t.requires_grad, t.grad) for n, t in self.model.named_parameters()]
        tensors += [(n, id(t), t.clone(), t.requires_grad, t.grad) for n, t in self.model.named_buffers()]
        return [
            [(name, id(module), module.training, sorted(vars(module))) for name, module in modules],
            [(name, len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in modules],
            tensors,
            [(getattr(module, "p", None), getattr(module, "momentum", None)) for _, module in modules],
            [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()],
            [each.generator.get_state() for each in self.loaders],
        ]

    def check(self) -> None:
        assert same(self.before, self.now())


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return (
            isinstance(other, Tensor)
            and torch.equal(one.isnan(), other.isnan())
            and one.nan_to_num().equal(other.nan_to_num())
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)
