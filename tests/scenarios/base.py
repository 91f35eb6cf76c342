"""What every scenario shares: a plain fit, and what a training leaves."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from tests.callbacks.trainings import Classifier, batches, fit

Callbacks = list[Any]
Scenario = Callable[[Callbacks], Any]


def ended(trainer: Any, module: Any) -> Any:
    """What a training leaves, bit for bit."""
    optimizers = copy.deepcopy([optimizer.state_dict() for optimizer in trainer.optimizers])
    return module.losses, module.state_dict(), optimizers, torch.get_rng_state(), trainer.global_step


def plain(make: Callable[[], Any] = Classifier, more: Callable[[], Callbacks] = list, **options: Any) -> Scenario:
    """A fit of three batches with some options of the Trainer, and other callbacks beside."""

    def run(callbacks: Callbacks) -> Any:
        torch.manual_seed(0)
        module = make()
        return ended(fit(module, [*callbacks, *more()], batches(4), **options), module)

    return run


class Validated(Classifier):
    """Has all four loops."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    test_step = validation_step

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self.net(batch[0])

    def train_dataloader(self) -> Any:
        return DataLoader([(x, y) for batch in batches(3) for x, y in zip(*batch, strict=True)], self.batch_size)

    batch_size = 4
    lr = 0.01

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def needing(package: str, run: Scenario) -> Scenario:
    def checked(callbacks: Callbacks) -> Any:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
        return run(callbacks)

    return checked
