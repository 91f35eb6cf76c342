"""The losses between two probed steps, kept where they are until a probe copies them, and those of validations."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from lightning_tricks.stats import to_host

MOST = 64  # are kept; above this every other one is dropped, and every other one of those to come
_VALIDATION = re.compile(r"(^|[^a-z])val(id(ation)?)?([^a-z]|loss|$)")
_PLAIN = ("val_loss", "valid_loss", "validation_loss", "loss_val", "loss_validation")


class LossHistory:
    """The losses of the steps since the last probed one, the oldest first, thinned evenly; nothing is copied.

    >>> history = LossHistory()
    >>> for step in range(100):
    ...     history.add(step, float(step))
    >>> len(history.losses), history.losses[:3], history.losses[-1]
    (50, [0.0, 2.0, 4.0], 98.0)
    """

    def __init__(self) -> None:
        self.losses: list[torch.Tensor | float] = []  # tensors of no dimension, or numbers out of a checkpoint
        self._stride, self._count, self._step = 1, 0, -1

    def add(self, step: int, loss: torch.Tensor | float) -> None:
        """The loss of a step; a training that begins anew leaves what came after it behind."""
        if step <= self._step:
            self.clear()
        self._step = step
        if self._count % self._stride == 0:
            if len(self.losses) == MOST:
                del self.losses[1::2]
                self._stride *= 2
            self.losses.append(loss)
        self._count += 1

    def clear(self) -> None:
        self.losses, self._stride, self._count = [], 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Plain data; a loss that is no finite number is None."""
        tensors = iter(to_host([loss for loss in self.losses if isinstance(loss, torch.Tensor)]))
        losses = [float(next(tensors)) if isinstance(loss, torch.Tensor) else loss for loss in self.losses]
        plain = [loss if math.isfinite(loss) else None for loss in losses]
        return {"losses": plain, "stride": self._stride, "count": self._count, "step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.losses = [math.nan if loss is None else loss for loss in state["losses"]]
        self._stride, self._count, self._step = state["stride"], state["count"], state["step"]

    def __getstate__(self) -> dict[str, Any]:
        return self.state_dict()  # no tensors of a device that may not be there

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.load_state_dict(state)


class ValidationLoss:
    """The loss of one validation: the metric of that name, else the mean of what ``validation_step`` returned."""

    def __init__(self) -> None:
        self._total: torch.Tensor | None = None
        self._count = 0

    def add(self, outputs: Any) -> None:
        """What a batch returned."""
        loss = loss_in(outputs)
        if loss is not None:
            self._total = loss if self._total is None else self._total + loss
            self._count += 1

    def finish(self, metrics: Mapping[str, Any]) -> float | None:
        """The loss of the validation that is over; a new one begins."""
        total, count = self._total, self._count
        self._total, self._count = None, 0
        key = loss_key(metrics)
        if key is not None:
            return float(metrics[key])
        return None if total is None else float(total) / count


def loss_in(outputs: Any) -> torch.Tensor | None:
    """The loss in what a step returned, outside of the graph; None where there is none."""
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.is_floating_point():
        return None
    loss = loss.detach() if loss.requires_grad else loss
    return loss.reshape(()) if loss.dim() else loss


def loss_key(keys: Iterable[str]) -> str | None:
    """The plainest name of a validation loss among the names of metrics; None where there is none.

    >>> loss_key(["train_loss", "val_loss_step", "val/box_loss", "val/loss", "value_loss"])
    'val/loss'
    """
    found = [key for key in keys if _VALIDATION.search(key.lower()) and "loss" in key.lower() and "_step" not in key]
    return min(found, key=lambda key: (_plain(key) not in _PLAIN, len(key), key), default=None)


def _plain(key: str) -> str:
    return re.sub(r"[^a-z]+", "_", key.lower()).removesuffix("_epoch")
