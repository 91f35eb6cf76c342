"""One step: of a LightningModule as the Trainer makes it, with its hooks in their order; of a module and a loss."""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.model.batches import tensors_in


def begin(module: Any) -> None:
    """What the Trainer calls before the first batch.

    Raises:
        NotAskedError: It asks for more of a Trainer than there is.
    """
    for hook in (module.on_fit_start, module.on_train_start, module.on_train_epoch_start):
        try:
            hook()
        except Exception as error:
            raise NotAskedError(f"{hook.__name__} fails without a Trainer: {error}") from error


def lightning_step(training: Any, batch: Any) -> Tensor | None:
    """As the Trainer makes it: the closure of the optimiser's step runs, clears and goes backward."""
    module, optimizer, index = training.module, training.optimizer, training.steps
    found: list[Tensor | None] = []
    if module.on_train_batch_start(batch, index) == -1:
        return None

    def closure() -> Tensor | None:
        loss = training.loss_or_none(batch)
        found.append(loss)
        if index % training.accumulate == 0 and optimizer is not None:
            module.on_before_zero_grad(optimizer)
            module.optimizer_zero_grad(0, index, optimizer)
        if loss is not None and loss.requires_grad:
            module.on_before_backward(loss)
            module.backward(loss / training.accumulate)
            module.on_after_backward()
        return loss

    def closure_of_step() -> Tensor | None:
        loss = closure()
        module.on_before_optimizer_step(optimizer)
        limit, algorithm = training.clip
        module.configure_gradient_clipping(optimizer, limit or None, algorithm)
        return loss

    if optimizer is None or (index + 1) % training.accumulate:
        closure()
    else:
        module.optimizer_step(0, index, optimizer, closure_of_step)
    loss = found[-1] if found else None
    module.on_train_batch_end({"loss": loss}, batch, index)
    return loss


def plain_step(training: Any, batch: Any) -> Tensor:
    """A step of a loop around a module and a loss."""
    loss = training.loss(batch)
    if training.steps % training.accumulate == 0:
        training.module.zero_grad()
    if loss.requires_grad:
        (loss / training.accumulate).backward()
        if training.optimizer is not None and (training.steps + 1) % training.accumulate == 0:
            clip([p for group in training.optimizer.param_groups for p in group["params"]], *training.clip)
            training.optimizer.step()
    return loss


def clip(parameters: list[nn.Parameter], limit: float, algorithm: str) -> None:
    """As Trainer(gradient_clip_val=limit, gradient_clip_algorithm=algorithm) does; 0: not at all."""
    if limit and algorithm == "value":
        torch.nn.utils.clip_grad_value_(parameters, limit)
    elif limit:
        torch.nn.utils.clip_grad_norm_(parameters, limit)


def loss_of_step(module: Any, batch: Any, index: int) -> Tensor | None:
    """What ``training_step`` returns, or its entry "loss"; None where it skips the batch."""
    taken = list(inspect.signature(module.training_step).parameters.values())
    keywords = {"batch_idx": index, "dataloader_idx": 0}
    named = {name: value for name, value in keywords.items() if any(p.name == name for p in taken)}
    free = [p for p in taken if p.name not in keywords and p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    found = module.training_step(*([batch, index][: max(1, len(free))]), **named)
    return found.get("loss") if isinstance(found, dict) else found


def mean_loss(batches: Iterable[Any], loss_of: Callable[[Any], Tensor | None]) -> float:
    """Over all patterns of the batches; NaN where every one is skipped."""
    total, count = 0.0, 0
    for batch in batches:
        size = next((len(t) for t in tensors_in(batch) if t.dim()), 1)
        loss = loss_of(batch)
        if loss is not None:
            total, count = total + size * float(loss.detach()), count + size
    return total / count if count else math.nan


def on_device(module: Any, batch: Any, device: torch.device) -> Any:
    """The batch as the Trainer hands it to the step."""
    batch = module.on_before_batch_transfer(batch, 0)
    batch = module.transfer_batch_to_device(batch, device, 0)
    return module.on_after_batch_transfer(batch, 0)


def cloned(batch: Any) -> Any:
    """A batch whose tensors a step may change."""
    if isinstance(batch, Tensor):
        return batch.clone()
    if isinstance(batch, dict) and type(batch) is dict:
        return {key: cloned(value) for key, value in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(cloned(value) for value in batch)
    with contextlib.suppress(Exception):
        return copy.deepcopy(batch)
    return batch
