"""What is done where a training goes backward: the loss is kept, and who goes back and why is told apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_tricks._compat import torch_functions
from lightning_tricks.probes.watch.annotations import graph_behind
from lightning_tricks.probes.watch.handlers import Arguments, Function, Keywords
from lightning_tricks.probes.watch.observer import Observer
from lightning_tricks.stats import unreadable


def gradient_of(observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """torch.autograd.grad, as in a gradient penalty: its gradients are no error signals."""
    before, observer.gradients.paused = observer.gradients.paused, True
    try:
        return func(*args, **kwargs)
    finally:
        observer.gradients.paused = before


def backward(observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    # reentrant checkpointing goes backward inside a backward
    if observer.closed or observer.paused or torch_functions.in_backward():
        return func(*args, **kwargs)
    given = args[0] if args else kwargs.get("tensors")
    leaves: list[Tensor] = []
    with observer.guard("loss"):
        for value in [given] if isinstance(given, Tensor) else list(given or ()):
            leaves += _note_loss(observer, value)
    with observer.guard("training loop"), torch.no_grad():
        observer.loop.before_backward(leaves)
    flags = dict(zip(("retain_graph", "create_graph"), args[2:], strict=False))
    flags.update(kwargs)
    keeps = flags.get("retain_graph")
    observer.gradients.keeps_graph = bool(flags.get("create_graph") if keeps is None else keeps)
    try:
        return func(*args, **kwargs)
    finally:
        observer.gradients.keeps_graph = False
        with observer.guard("training loop"):
            observer.loop.leftover.after_backward()
        with observer.guard("gradients"):
            observer.raw_gradients.after_backward()


def unscaling(observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """A loss scaler takes its factor off the gradients."""
    output = func(*args, **kwargs)
    with observer.guard("gradients"):
        observer.raw_gradients.after_unscaling()
    return output


def _note_loss(observer: Observer, loss: Tensor) -> list[Tensor]:
    """Keep the value of a loss; what it depends on."""
    tallies = observer.tallies
    if loss.numel() == 1 and unreadable(loss) is None:
        value = loss.detach().reshape(())
        tallies.loss = value if tallies.loss is None else tallies.loss + value
    observer.loss_path.arrive(loss)
    if observer.outermost is not None:
        observer.outermost.before_backward(loss)
    functions, leaves = graph_behind(loss)
    for name in functions:
        tallies.not_seen[name] = "custom autograd function: nothing inside it is seen"
    return leaves
