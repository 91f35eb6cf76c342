"""The only file that names lightning or touches a private attribute of its Trainer."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn

if TYPE_CHECKING:
    from lightning.pytorch import Callback
elif importlib.util.find_spec("pytorch_lightning") is not None:
    # `lightning` and `pytorch_lightning` are two class trees; a callback that is of both works in both Trainers.
    import pytorch_lightning

    class Callback(pl.Callback, pytorch_lightning.Callback):
        """A callback for the Trainers of ``lightning`` and of ``pytorch_lightning``."""

else:
    from lightning.pytorch import Callback

LightningModule = pl.LightningModule
Trainer = pl.Trainer

__all__ = [
    "Callback",
    "LightningModule",
    "Trainer",
    "call_training_step",
    "handles_unscaling",
    "is_logging",
    "loss_scale",
    "optimizers_of",
    "rank_zero_warn",
    "report_folder",
    "set_callback_metrics",
    "steps_taken",
    "window_ends",
]


def steps_taken(trainer: Trainer) -> int:
    """Optimiser steps before this batch, on the axis of the loggers (two optimisers of a batch count once)."""
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


def window_ends(trainer: Trainer) -> bool:
    """Whether this batch is the last of an accumulation window, so that the optimiser steps."""
    return not trainer.fit_loop.epoch_loop._should_accumulate()


def is_logging(trainer: Trainer) -> bool:
    """Whether the Trainer writes to its loggers after this batch."""
    if getattr(trainer, "barebones", False):
        return False
    return bool(trainer._logger_connector.should_update_logs or getattr(trainer, "fast_dev_run", False))


def set_callback_metrics(trainer: Trainer, values: dict[str, float]) -> None:
    """Put numbers where EarlyStopping and ModelCheckpoint look, between two writes to the loggers.

    ``LightningModule.log`` costs some 50 microseconds a number, which only pays when a logger writes it.
    """
    tensors = {key: torch.tensor(value) for key, value in values.items()}
    trainer._logger_connector._callback_metrics.update(tensors)


def loss_scale(trainer: Trainer) -> float | torch.Tensor:
    """The factor on the loss that goes backward: the loss scaler's, as a tensor on the device, or 1."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    scale = getattr(scaler, "_scale", None)
    return scale.detach().clone() if isinstance(scale, torch.Tensor) else 1.0


def handles_unscaling(optimizer: Any) -> bool:
    """Whether gradients are still scaled right before this optimiser's step, because it unscales them itself."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def report_folder(trainer: Trainer, name: str) -> Path:
    """Where files of a callback go: beside the logger's, else under the Trainer's default_root_dir; on all ranks."""
    folder = trainer.log_dir if trainer.loggers else None
    return Path(folder or trainer.default_root_dir) / name


def optimizers_of(module: LightningModule) -> list[torch.optim.Optimizer]:
    """What ``configure_optimizers`` returns, without schedulers, for a module that has no Trainer.

    Raises:
        TypeError: It returns something that holds no optimiser.
    """
    configured: Any = module.configure_optimizers()
    if isinstance(configured, tuple) and len(configured) == 2 and isinstance(configured[0], (list, tuple)):
        configured = configured[0]
    found = []
    for entry in configured if isinstance(configured, (list, tuple)) else [configured]:
        optimizer = entry.get("optimizer") if isinstance(entry, dict) else entry
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"{type(module).__name__}.configure_optimizers() gave {entry!r}, which is no optimizer")
        found.append(optimizer)
    return found


def call_training_step(module: LightningModule, batch: Any, index: int) -> torch.Tensor | None:
    """The loss of one ``training_step``, without a Trainer: what it logs goes nowhere.

    Raises:
        TypeError: The step returns neither a loss nor a dict with ``"loss"``.
    """
    output: Any = module.training_step(batch, index)
    if isinstance(output, dict):
        output = output.get("loss")
    if output is not None and not isinstance(output, torch.Tensor):
        raise TypeError(f"{type(module).__name__}.training_step() returned {type(output).__name__}, not a loss")
    return output
