"""The losses between two looks, kept where they are until the next look copies them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from lightning_tricks.stats import to_host

MOST = 64  # are kept; above this every other one is dropped, and every other one of those to come


class LossCurve:
    """The losses of the steps since a monitor last looked, the oldest first, thinned evenly; nothing is copied.

    >>> curve = LossCurve()
    >>> for step in range(100):
    ...     curve.add(step, float(step))
    >>> len(curve.losses), curve.losses[:3], curve.losses[-1]
    (50, [0.0, 2.0, 4.0], 98.0)
    """

    def __init__(self) -> None:
        self.losses: list[Any] = []  # tensors of no dimension, or numbers that came out of a checkpoint
        self._stride, self._count, self._step = 1, 0, -1

    def add(self, step: int, loss: Any) -> None:
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


def loss_in(outputs: Any) -> torch.Tensor | None:
    """The loss in what a step returned, outside of the graph; None where there is none."""
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.is_floating_point():
        return None
    loss = loss.detach() if loss.requires_grad else loss
    return loss.reshape(()) if loss.dim() else loss
