"""validation_like_training: is validation the same network on the same kind of data?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks._compat.lightning import is_lightning_module
from lightning_tricks.experiments.asking import Answer, LossFunction, asks, copied
from lightning_tricks.experiments.free_outputs import free_outputs, share
from lightning_tricks.experiments.patterns import NotAskedError
from lightning_tricks.experiments.sampling import spread
from lightning_tricks.experiments.training import Training
from lightning_tricks.experiments.validation_path import validation_loss

_BATCHES = 4  # of either


@asks("Does validation data behave as training data that was not trained on?")
def validation_like_training(
    model: nn.Module | Training, data: Any, loss_fn: LossFunction | None = None, val_data: Any = None
) -> Answer:
    """The loss on training batches against that on validation batches, both in evaluation mode.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``.
        data: A loader or batches to train on; not yet trained on by this model, or its gap is that of overfitting.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.
        val_data: The same for validation.

    Returns:
        Numbers: ``training`` and ``validation``, mean losses by the same step; ``gap``, the difference in shares of
        the way from a guess to the floor; ``errors``, the difference over its standard error; ``same_batch`` and
        ``by_validation_step``: a training batch in evaluation mode, by ``training_step`` and by ``validation_step``.

        How to read it: a gap over .3 that is many standard errors: other scales, other classes, another order of
        classes. The same batch with another loss: the two steps do not run the same network or the same loss.

    >>> net = nn.Linear(8, 1)
    >>> data, others = ((torch.randn(64, 8), torch.randn(64, 1)) for _ in range(2))
    >>> abs(validation_like_training(net, data, nn.functional.mse_loss, others).numbers["gap"]) < 2
    True
    """
    if val_data is None:
        raise NotAskedError("no validation data were given")
    training = copied(model, loss_fn)
    batches, others = spread(data, _BATCHES), spread(val_data, _BATCHES)
    own, other = (_losses(training, each) for each in (batches, others))
    way = free_outputs(training, batches[0]).numbers
    trained, validated = float(own.mean()), float(other.mean())
    gap = math.nan
    if way:
        gap = share(trained, way["guess"], way["floor"]) - share(validated, way["guess"], way["floor"])
    error = math.sqrt(sum(float(x.var()) / len(x) for x in (own, other))) if min(len(own), len(other)) > 1 else math.nan
    errors = (validated - trained) / error if error > 0 else math.nan
    numbers = {"training": trained, "validation": validated, "gap": gap, "errors": errors}
    text = f"{trained:.4g} on training batches, {validated:.4g} on validation batches"
    if is_lightning_module(training.module) and training.uses_own_step:
        same = training.evaluate(batches[:1])
        through = validation_loss(training, batches[0])
        if not math.isnan(through):
            numbers |= {"same_batch": same, "by_validation_step": through}
            text += f"; a training batch has {same:.4g} by training_step and {through:.4g} by validation_step"
    return Answer(text, numbers)


def _losses(training: Training, batches: list[Any]) -> Tensor:
    return torch.tensor([training.evaluate([batch]) for batch in batches], dtype=torch.float64)
