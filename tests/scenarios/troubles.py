"""Trainings in which something fails: the user's code, the disk, a logger, a checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from lightning.pytorch import callbacks as others
from lightning.pytorch.loggers import CSVLogger

from lightning_tricks.callbacks.monitoring.checkpoints import KEY
from tests.callbacks.monitoring.test_monitor_checkpoints import OLD, Resumable
from tests.callbacks.trainings import Classifier, batches, fit
from tests.versions import LIGHTNING

from .base import Callbacks, Scenario, ended, plain


def stopped_by(error: type[BaseException]) -> Scenario:
    """An error of the user's code amid the third step."""

    class Stopping(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 2:
                raise error("of the user's")
            return super().training_step(batch, batch_idx)

    def run(callbacks: Callbacks) -> Any:
        torch.manual_seed(0)
        module = Stopping()
        with pytest.raises((error, SystemExit)):  # Lightning ends the process after Ctrl-C
            fit(module, callbacks, batches(4))
        return module.losses, module.state_dict(), torch.get_rng_state()

    return run


class Broken(CSVLogger):
    """Takes no metric of the package's, as a service that does not know their names."""

    def log_metrics(self, metrics: Any, step: Any = None) -> None:
        if any("/" in key for key in metrics):
            raise ConnectionError("no network")
        super().log_metrics(metrics, step)


def logger_that_raises(callbacks: Callbacks) -> Any:
    left = plain(logger=Broken("csv"), log_every_n_steps=2)(callbacks)
    return left, Path("csv/lightning_logs/version_0/metrics.csv").exists()


def folder_that_cannot_be(callbacks: Callbacks) -> Any:
    Path("taken").write_text("a file where the folder is to be")
    return plain(default_root_dir="taken")(callbacks)


def full_disk(callbacks: Callbacks) -> Any:
    with mock.patch.object(os, "replace", side_effect=OSError(28, "No space left on device")):
        return plain()(callbacks)


def resumed(callbacks: Callbacks, change: Any = None) -> Any:
    """A second fit from a checkpoint of the first, in which something was changed."""
    fit(Classifier(), callbacks, batches(3)).save_checkpoint("first.ckpt")
    if change is not None:
        state = torch.load("first.ckpt", weights_only=False)
        change(state)
        torch.save(state, "first.ckpt")
    module = Classifier()
    return ended(fit(module, callbacks, batches(3), max_epochs=2, ckpt_path="first.ckpt"), module)


def _cut(state: Any) -> None:
    if KEY in state:
        state[KEY]["histories"]["records"] = state[KEY]["histories"]["records"][:50]


def _of_version_0_1(state: Any) -> None:
    state.pop(KEY, None)
    state["callbacks"].update(json.loads(json.dumps(OLD)))


def resumed_amid_an_epoch(callbacks: Callbacks) -> Any:
    if LIGHTNING < (2, 5):
        pytest.skip("Lightning 2.4 does not begin again amid an epoch where it stopped")
    saving = others.ModelCheckpoint("saved", every_n_train_steps=2, save_top_k=-1, filename="{step}")
    fit(Classifier(), [*callbacks, saving], Resumable(batches(4)), enable_checkpointing=True)
    module = Classifier()
    return ended(fit(module, callbacks, Resumable(batches(4)), ckpt_path="saved/step=2.ckpt"), module)


TROUBLES: dict[str, Scenario] = {
    "exception": stopped_by(ZeroDivisionError),
    "Ctrl-C": stopped_by(KeyboardInterrupt),
    "a logger that raises": logger_that_raises,
    "folder that cannot be written": folder_that_cannot_be,
    "disk full": full_disk,
    "resumed at the end of an epoch": resumed,
    "resumed amid an epoch": resumed_amid_an_epoch,
    "checkpoint damaged": lambda callbacks: resumed(callbacks, _cut),
    "checkpoint of version 0.1": lambda callbacks: resumed(callbacks, _of_version_0_1),
}
