"""own_input: does a pattern's output change when its own input is replaced?"""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_tricks.experiments.asking import Answer, LossFunction, asks, copied
from lightning_tricks.experiments.dependence import CONSTANT
from lightning_tricks.experiments.independence import asked_record
from lightning_tricks.experiments.training import Training
from lightning_tricks.probes.records.preflight import PreflightRecord

QUESTION = "Does a pattern's output change when its own input is replaced?"


@asks(QUESTION)
def own_input(model: nn.Module | Training, batch: Any, loss_fn: LossFunction | None = None) -> Answer:
    """How much an output changes when its pattern's input is replaced by that of another, in evaluation mode.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``.
        batch: One batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.

    Returns:
        Numbers: ``own``, the largest change over the outputs' standard deviation.

        How to read it: under 1e-6 the network is a constant: dead units, a softmax over one entry, saturated outputs.
        A network whose last layer begins at zero is one until its first step.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(8, 1), nn.Softmax(dim=1))
    >>> print(own_input(net, (torch.randn(16, 8), torch.rand(16, 1)), nn.functional.mse_loss))
    own_input: Does a pattern's output change when its own input is replaced? no: it is the same for every input
    """
    return of_record(asked_record(copied(model, loss_fn), batch))


def of_record(record: PreflightRecord) -> Answer:
    """What a record says of its own input."""
    numbers = {"own": record.own, "patterns": float(record.patterns)}
    if record.own <= CONSTANT:
        return Answer("no: it is the same for every input", numbers)
    return Answer(f"yes, by {record.own:.3g} std", numbers)
