"""evaluation_gap: is a batch's loss the same in training and in evaluation mode?"""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import nn

from lightning_tricks.experiments.asking import Answer, LossFunction, asks, copied
from lightning_tricks.experiments.free_outputs import free_outputs, share
from lightning_tricks.experiments.training import Training
from lightning_tricks.model.layers import has_running_statistics

_DRAWS = 3  # of dropout


@asks("Is the loss of a batch the same in training and in evaluation mode?")
def evaluation_gap(model: nn.Module | Training, batch: Any, loss_fn: LossFunction | None = None) -> Answer:
    """The loss of one batch in training mode, the mean of a few draws, and in evaluation mode.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``.
        batch: One batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.

    Returns:
        Numbers: ``training`` and ``evaluation``, the losses; ``gap``, by how much of the way from a guess to the floor
        evaluation is worse (NaN where that way is not known); ``norm_updates``, how often the batch norms have been
        updated, at the least.

        How to read it: above 0, batch norm's running statistics do not describe the data: few updates yet, batches of
        one kind each, a momentum that is too small. Below 0, dropout or noise in training mode.

    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> evaluation_gap(net, (torch.randn(64, 8), torch.arange(64) % 2), nn.functional.cross_entropy).numbers["gap"]
    0.0
    """
    training = copied(model, loss_fn)
    norms = [module for module in training.module.modules() if has_running_statistics(module)]
    counts = [float(each.num_batches_tracked) for each in norms if each.num_batches_tracked is not None]
    evaluated = training.evaluate([batch])
    with torch.no_grad():
        losses = [float(training.loss(batch)) for _ in range(_DRAWS)]
    trained = statistics.mean(losses)
    way = free_outputs(model, batch, loss_fn).numbers
    gap = float("nan")
    if way:
        gap = share(trained, way["guess"], way["floor"]) - share(evaluated, way["guess"], way["floor"])
    numbers = {"training": trained, "evaluation": evaluated, "gap": gap}
    if counts:
        numbers["norm_updates"] = min(counts)
    text = "yes" if evaluated == trained else "no" if abs(gap) > 0.01 or gap != gap else "nearly"
    return Answer(f"{text}: {trained:.4g} in training mode, {evaluated:.4g} in evaluation mode", numbers)
