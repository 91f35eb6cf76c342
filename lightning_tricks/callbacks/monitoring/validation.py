"""The loss of a validation, under whatever name it goes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from lightning_tricks.callbacks.monitoring.loss_history import loss_in

_VALIDATION = re.compile(r"(^|[^a-z])val(id(ation)?)?([^a-z]|loss|$)")
_PLAIN = ("val_loss", "valid_loss", "validation_loss", "loss_val", "loss_validation")


def loss_key(keys: Iterable[str]) -> str | None:
    """The plainest name of a validation loss among the names of metrics; None where there is none.

    >>> loss_key(["train_loss", "val_loss_step", "val/box_loss", "val/loss", "value_loss"])
    'val/loss'
    """
    found = [key for key in keys if _VALIDATION.search(key.lower()) and "loss" in key.lower() and "_step" not in key]
    return min(found, key=lambda key: (_plain(key) not in _PLAIN, len(key), key), default=None)


class ValidationLoss:
    """What one validation says: the metric of that name, else the mean of what ``validation_step`` returned."""

    def __init__(self) -> None:
        self._total: torch.Tensor | None = None
        self._count = 0

    def add(self, outputs: Any) -> None:
        """What a batch returned."""
        loss = loss_in(outputs)
        if loss is not None:
            self._total = loss if self._total is None else self._total + loss
            self._count += 1

    def take(self, metrics: Mapping[str, Any]) -> float | None:
        """The loss of the validation that is over, and begin a new one."""
        total, count = self._total, self._count
        self._total, self._count = None, 0
        key = loss_key(metrics)
        if key is not None:
            return float(metrics[key])
        return None if total is None else float(total) / count


def _plain(key: str) -> str:
    return re.sub(r"[^a-z]+", "_", key.lower()).removesuffix("_epoch")
