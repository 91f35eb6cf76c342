"""Running a model to look at it, with nothing left behind."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

__all__ = ["undisturbed"]


@contextlib.contextmanager
def undisturbed(model: nn.Module, layers: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Eval mode without gradients; afterwards training flags and random streams are as they were.

    Args:
        model: The model to be run.
        layers: Layers whose buffers get their values back if an exception leaves the block.

    >>> model = nn.Sequential(nn.Dropout(0.5))
    >>> with undisturbed(model):
    ...     model[0].training
    False
    >>> model[0].training
    True
    """
    modes = [(module, module.training) for module in model.modules()]
    saved = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers(recurse=False)]
    cuda = {tensor.device.index or 0 for tensor in [*model.parameters(), *model.buffers()] if tensor.is_cuda}
    host = random.getstate(), np.random.get_state()
    # Hooks put on after compilation are ignored in silence. Without dynamo there is nothing compiled, and asking for
    # the stance would import it.
    stance = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()
    try:
        with torch.random.fork_rng(devices=sorted(cuda)), torch.no_grad(), stance:
            for module, _ in modes:
                module.training = False  # not .eval(): a model may freeze or merge layers in its own train()
            yield
    except BaseException:
        with torch.no_grad():
            for buffer, value in saved:
                buffer.copy_(value)
        raise
    finally:
        random.setstate(host[0])
        np.random.set_state(host[1])
        for module, mode in modes:
            module.training = mode
