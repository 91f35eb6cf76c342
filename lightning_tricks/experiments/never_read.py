"""never_read: which input features have no influence on the output at all?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.experiments.asking.asks import Answer, LossFunction, asks, copied
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.independence import outermost_call
from lightning_tricks.experiments.preflight.patterns import Collation, NotAskedError, mapped
from lightning_tricks.experiments.preflight.replay import replayable
from lightning_tricks.experiments.training import Training
from lightning_tricks.model.batches import tensors_in

QUESTION = "Which input features have no influence on the output?"
_SEED = 0
_NAMED = 8  # features that the answer lists


@asks(QUESTION)
def never_read(model: nn.Module | Training, batch: Any, loss_fn: LossFunction | None = None) -> Answer:
    """Input features whose gradient is exactly 0 for every pattern of a batch, in evaluation mode.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``.
        batch: One batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.

    Returns:
        Numbers: ``features`` of the float inputs, and how many of them are ``never_read``. Integers, such as tokens,
        have no gradient and are not counted.

        How to read it: features that are sliced away or multiplied by zero; all of them where the output is a constant
        or the graph is cut; also where all units are dead for these patterns. Many networks leave some out by right.

    >>> class Half(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = nn.Linear(4, 1)
    ...     def forward(self, x):
    ...         return self.layer(x[:, :4])
    >>> found = never_read(Half(), (torch.randn(16, 8), torch.randn(16, 1)), nn.functional.mse_loss)
    >>> found.numbers
    {'features': 8.0, 'never_read': 4.0}
    """
    return _unread(copied(model, loss_fn), batch)


def _unread(training: Training, batch: Any, loader: Any = None) -> Answer:
    call = outermost_call(training, batch)
    collation = Collation.of(batch, loader)
    inputs: list[Tensor] = []

    def follow(tensor: Tensor) -> Tensor:
        tensor = tensor.detach().clone()
        if tensor.is_floating_point() and tensor.dim():
            inputs.append(tensor.requires_grad_())
        return tensor

    args, kwargs = mapped((call.args, call.kwargs), follow)
    if not inputs:
        raise NotAskedError("the network is given no numbers that have a gradient")
    with replayable(call.module, draws=call.drew) as (_, run), torch.enable_grad():
        outputs = [x for x in tensors_in(run(*args, **kwargs)) if x.requires_grad]
        if not outputs:
            raise NotAskedError("the output has no gradient with respect to the input")
        generator = torch.Generator().manual_seed(_SEED)
        # A random projection: sums of what is normalised, as by a softmax, do not change with the input.
        total = torch.stack([(x * torch.randn(x.shape, generator=generator).to(x)).sum() for x in outputs]).sum()
        gradients = torch.autograd.grad(total, inputs, allow_unused=True)
    pairs = zip(inputs, gradients, strict=True)
    silent = [_silent(x, torch.zeros_like(x) if gradient is None else gradient, collation) for x, gradient in pairs]
    features, unread = sum(each.numel() for each in silent), sum(int(each.sum()) for each in silent)
    numbers = {"features": float(features), "never_read": float(unread)}
    if not unread:
        return Answer(f"none: all {features} have", numbers)
    which = torch.cat([each.flatten() for each in silent]).nonzero().flatten().tolist()
    listed = ", ".join(map(str, which[:_NAMED])) + (", ..." if len(which) > _NAMED else "")
    along = "".join(f"; {text}" for text in map(_along, silent) if text)
    return Answer(f"{unread} of {features}: {listed}{along}", numbers)


def _silent(x: Tensor, gradient: Tensor, collation: Collation) -> Tensor:
    """Per feature whether no pattern's gradient is anything but zero."""
    axis = collation.axis(x)
    return ~(gradient != 0).any(0 if axis is None else axis)


def _along(silent: Tensor) -> str:
    """Which few places along an axis of the patterns are read, where that is all that tells them apart."""
    for axis in range(silent.dim() if silent.dim() > 1 else 0):
        places = silent.movedim(axis, 0).reshape(silent.shape[axis], -1)
        read = (~places).any(1).nonzero().flatten().tolist()
        if 0 < len(read) <= len(places) // 2 and bool((places == places[:, :1]).all()):
            few = ", ".join(map(str, read[:_NAMED])) + (", ..." if len(read) > _NAMED else "")
            return f"along axis {axis + 1} only {few} of {len(places)} is read"
    return ""


@tried("never_read", order=4)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject.trained, subject.batch, subject.data)


_asked = asks(QUESTION, "never_read")(_unread)
