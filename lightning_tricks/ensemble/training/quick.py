"""What the Trainer asks of its module in every step, without the detours that a small step pays more for than for
its arithmetic."""

from __future__ import annotations

from typing import Any

from lightning_tricks._compat import lightning as _lightning


class Quick(_lightning.LightningModule):
    """A LightningModule whose own share of the Trainer's step is small; what it does is what the base class does."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # set before and after every hook, some forty times a step
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
