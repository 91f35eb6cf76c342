"""A forward pass that leaves no trace: flags, buffers and random numbers are as before, whatever happens in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["Forward", "quiet", "run_once"]

Forward = Callable[[nn.Module, Any], Any]


def run_once(model: nn.Module, batch: Any, forward: Forward | None) -> None:
    """``forward(model, batch)``, or the model on the batch, of tuples and lists on the first element."""
    if forward is not None:
        forward(model, batch)
    else:
        model(batch[0] if isinstance(batch, (tuple, list)) else batch)


@contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Within the block no gradients are kept, dropout is off, and batch norm works as its own flag says.

    Batch norm keeps its flag because what follows it sees the batch's statistics in training; the running ones of a
    new network say nothing. Afterwards every training flag, every buffer and the state of the random number
    generators is as before.
    """
    flags = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers()) if tensor.is_cuda}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with torch.random.fork_rng(devices=sorted(device.index for device in devices)), torch.no_grad():
        try:
            torch.backends.mha.set_fastpath_enabled(False)  # it would pass by the layers inside a transformer
            for module in flags:
                if not isinstance(module, _NormBase):
                    module.training = False
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
            for module, training in flags.items():
                module.training = training
            for buffer, before in buffers:
                buffer.copy_(before)
