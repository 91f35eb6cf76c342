"""The loss of a batch by a LightningModule's validation_step, from what it returns or logs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lightning_tricks.experiments.training import Training
from lightning_tricks.experiments.training.steps import cloned, on_device
from lightning_tricks.model.isolated import isolated

_KEYS = ("val_loss", "loss", "valid_loss", "validation_loss", "val/loss", "valid/loss", "validation/loss", "loss/val")


def validation_loss(training: Training, batch: Any) -> float:
    """The loss that ``validation_step`` returns, or logs by a usual name; NaN where it does neither or fails."""
    module, logged = training.module, dict[str, Any]()
    own = dict(vars(module))

    def log(name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        logged[name] = value

    def log_dict(values: Any, *args: Any, **kwargs: Any) -> None:
        logged.update(values)

    vars(module).update(log=log, log_dict=log_dict)
    try:
        with isolated(module):
            torch.manual_seed(0)
            made = module.validation_step(on_device(module, cloned(batch), training.device), 0)
    except Exception:  # it needs more than a batch: other hooks, a Trainer, several loaders
        return math.nan
    finally:
        vars(module).update(log=own["log"], log_dict=own["log_dict"])
    return _number(made.get("loss") if isinstance(made, dict) else made, logged)


def _number(returned: Any, logged: dict[str, Any]) -> float:
    named = [logged[key] for key in _KEYS if key in logged]
    for value in (*named, returned):
        if isinstance(value, (Tensor, float)) and torch.as_tensor(value).numel() == 1:
            return float(value)
    return math.nan
