"""A copy of a model with the loss of a batch, as its training would compute it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks._compat import lightning as compat
from lightning_tricks._compat.compiled import original_of
from lightning_tricks.experiments.asking import WrongArgumentError
from lightning_tricks.experiments.kept import SHARED, TRAINER
from lightning_tricks.experiments.patterns import NotAskedError

LossFunction = Callable[[Any, Any], Tensor]


class Copied:
    """A deep copy of a model.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``.
        loss_fn: ``loss_fn(model(x), y)``.

    Raises:
        NotAskedError: It cannot be copied.
    """

    def __init__(self, model: nn.Module, loss_fn: LossFunction | None = None) -> None:
        if not isinstance(model, nn.Module):
            raise WrongArgumentError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        model = original_of(model)
        if loss_fn is None and not compat.is_lightning_module(model):
            raise WrongArgumentError(f"{type(model).__name__} is no LightningModule: give a loss_fn(output, target)")
        held = [value for each in model.modules() for value in vars(each).values()]
        memo: dict[int, Any] = {id(value): value for value in held if isinstance(value, SHARED)}
        memo |= {id(vars(each)[TRAINER]): None for each in model.modules() if vars(each).get(TRAINER) is not None}
        try:
            self.module: nn.Module = copy.deepcopy(model, memo)
        except Exception as error:
            raise NotAskedError(f"{type(model).__name__} cannot be copied: {error}") from error
        self.loss_fn = loss_fn
        self.device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        self.module.zero_grad(set_to_none=True)
        if not self.module.training:
            self.module.train()

    def loss(self, batch: Any) -> Tensor:
        """The loss of a batch."""
        batch = compat.move_data_to_device(copy.deepcopy(batch), self.device)
        if self.loss_fn is None:
            made = self.module.training_step(batch, 0)  # type: ignore[operator]
            loss = made.get("loss") if isinstance(made, Mapping) else made
        else:
            x, y = batch.values() if isinstance(batch, dict) else batch
            loss = self.loss_fn(self.module(x), y)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise NotAskedError("the step gives no loss")
        return loss.reshape(())
