"""Early stopping of each member by itself, with its best weights kept."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor


class MemberStopping:
    """Watches one number per member: who got better, whose patience is over.

    Args:
        patience: Epochs without a better value after which a member is finished; None: never, best weights only.
        mode: Whether lower (``"min"``) or higher is better.
        min_delta: How much better a value has to be.

    >>> stopping = MemberStopping(patience=1)
    >>> [stopping.update({0: value}, {0: {}}) for value in (3.0, 2.0, 2.5)]
    [[], [], [0]]
    """

    def __init__(self, patience: int | None, mode: Literal["min", "max"] = "min", min_delta: float = 0.0) -> None:
        if patience is not None and patience < 1:
            raise ValueError(f"patience must be at least 1, or None for no stopping, got {patience}")
        if mode not in ("min", "max"):
            raise ValueError(f'mode must be "min" or "max", got {mode!r}')
        self.patience, self.mode, self.min_delta = patience, mode, min_delta
        self.best: dict[int, float] = {}
        self.waited: dict[int, int] = {}
        self.weights: dict[int, dict[str, Tensor]] = {}

    def update(self, values: dict[int, float], weights: dict[int, dict[str, Any]]) -> list[int]:
        """Take in the values of an epoch and the weights they belong to; the members that are finished."""
        finished = []
        for member, value in values.items():
            if self._better(value, self.best.get(member)):
                self.best[member], self.waited[member] = value, 0
                self.weights[member] = {name: tensor.detach().clone() for name, tensor in weights[member].items()}
            else:
                self.waited[member] = self.waited.get(member, 0) + 1
                if self.patience is not None and self.waited[member] >= self.patience:
                    finished.append(member)
        return finished

    def _better(self, value: float, best: float | None) -> bool:
        if value != value:  # NaN is never better
            return False
        if best is None:
            return True
        return value < best - self.min_delta if self.mode == "min" else value > best + self.min_delta

    def restore(self, member: int, network: torch.nn.Module) -> None:
        """Give a member its best weights."""
        if member in self.weights:
            network.load_state_dict(self.weights[member])

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited, self.weights = dict(state["best"]), dict(state["waited"]), dict(state["weights"])
