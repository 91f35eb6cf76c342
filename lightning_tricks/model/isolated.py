"""A forward pass that leaves no trace: flags, buffers and random numbers are as before, whatever happens in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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
    new network say nothing. A compiled model runs in eager mode, where hooks are heard. Afterwards every training
    flag, every buffer and the state of the random number generators is as before.
    """
    flags = {module: module.training for module in model.modules()}
    buffers = [
        (module, key, buffer, buffer.detach().clone())
        for module in flags
        for key, buffer in module.named_buffers(recurse=False)
    ]
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers()) if tensor.is_cuda}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    eager = torch.compiler.set_stance("force_eager") if any(map(_is_compiled, flags)) else nullcontext()
    with torch.random.fork_rng(devices=sorted(device.index for device in devices)), torch.no_grad(), eager:
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
            for module, key, buffer, before in buffers:
                buffer.copy_(before)
                module._buffers[key] = buffer  # a forward may have put another tensor in its place


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
