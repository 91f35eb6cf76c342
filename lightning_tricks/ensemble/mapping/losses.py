"""Losses of K members at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_tricks._compat.functorch import is_mapped, on_all

IGNORED = -100  # what torch's cross-entropy leaves out by default
FEW_CLASSES = 64


class StackedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of each member: logits ``[K, B, C]`` and classes ``[K, B]`` to losses ``[K]``.

    With few classes the patterns are put last, where a softmax over classes takes a quarter of the time.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        dim = 1 if logits.shape[2] <= FEW_CLASSES else 2
        logs = torch.log_softmax(logits.mT.contiguous() if dim == 1 else logits, dim)
        counted = target != IGNORED
        place = torch.where(counted, target, 0).unsqueeze(dim)
        weights = counted / counted.sum(1, keepdim=True).to(logs.dtype)
        ctx.save_for_backward(logs, place, weights)
        ctx.dim = dim
        return (logs.gather(dim, place).squeeze(dim) * weights).sum(1).neg()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logs, place, weights = ctx.saved_tensors
        scale = (weights * gradient.unsqueeze(1)).unsqueeze(ctx.dim)
        of_logits = logs.exp().mul_(scale).scatter_add_(ctx.dim, place, scale.neg())
        return of_logits.mT if ctx.dim == 1 else of_logits, None


def stacked_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of each of K members, as ``torch.nn.functional.cross_entropy`` with its default settings.

    >>> stacked_cross_entropy(torch.zeros(2, 5, 4), torch.zeros(2, 5, dtype=torch.long))
    tensor([1.3863, 1.3863])
    """
    return StackedCrossEntropy.apply(logits, target)


def cross_entropy_of_all(*args: Any, **kwargs: Any) -> Tensor | None:
    """``F.cross_entropy`` inside of a mapped call, for all members at once; None where it is not the plain one."""
    if len(args) != 2 or any(_DEFAULTS[name] != value for name, value in kwargs.items()):
        return None
    logits, target = args
    fits = is_mapped(logits) and is_mapped(target) and logits.dim() == 2 and target.dim() == 1
    if fits and logits.is_floating_point() and not torch.is_autocast_enabled(logits.device.type):
        return on_all(stacked_cross_entropy, logits, target)
    return None


_DEFAULTS = {
    "weight": None, "size_average": None, "ignore_index": IGNORED, "reduce": None, "reduction": "mean",
    "label_smoothing": 0.0,
}  # fmt: skip
