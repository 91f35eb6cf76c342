"""What the graph behind a loss tells that no function call did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_MOST_NODES = 20_000


def custom_functions(loss: Tensor) -> Iterator[str]:
    """Names of the autograd functions written in Python behind a loss: nobody sees what they do inside.

    >>> class Double(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x): return 2 * x
    ...     @staticmethod
    ...     def backward(ctx, gradient): return 2 * gradient
    >>> list(custom_functions(Double.apply(torch.ones(1, requires_grad=True)).sum()))
    ['Double']
    """
    seen: set[Any] = set()
    waiting = [loss.grad_fn]
    while waiting and len(seen) < _MOST_NODES:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            name = type(node).__name__.removesuffix("Backward")
            if name != "CheckpointFunction":  # listed by the layers inside it
                yield name
        waiting += [following for following, _ in node.next_functions]
