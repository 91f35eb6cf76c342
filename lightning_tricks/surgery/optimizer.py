"""Telling an optimiser that surgery took parameters away from a model and gave it others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn
from torch.optim import Optimizer

__all__ = ["hand_over", "refuse_wrapped"]


def hand_over(
    optimizer: Optimizer | None, gone: Iterable[nn.Parameter], new: Mapping[nn.Parameter, nn.Parameter]
) -> None:
    """Drops parameters from an optimiser with their state, and adds others.

    Args:
        optimizer: The optimiser, changed in place; None does nothing.
        gone: Parameters that the model no longer has.
        new: New parameter -> the parameter of the same layer whose group, with its learning rate, it joins. Where the
            optimiser does not have that one (a frozen layer), the new one stays out as well.

    >>> import torch
    >>> layer, norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    >>> hand_over(optimizer, [layer.bias], {norm.weight: layer.weight})
    >>> [p is q for p, q in zip(optimizer.param_groups[0]["params"], [layer.weight, norm.weight])]
    [True, True]
    """
    if optimizer is None:
        return
    leaving = {id(parameter) for parameter in gone}
    for group in optimizer.param_groups:
        members = group["params"]
        here = {id(parameter) for parameter in members}
        joining = [parameter for parameter, beside in new.items() if id(beside) in here and id(parameter) not in here]
        group["params"] = [parameter for parameter in members if id(parameter) not in leaving] + joining
    for parameter in list(optimizer.state):
        if id(parameter) in leaving:
            del optimizer.state[parameter]


def refuse_wrapped(model: nn.Module, what: str) -> None:
    """Surgery under DistributedDataParallel would leave its buckets behind.

    Raises:
        ValueError: The model is wrapped.
    """
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ValueError(f"{what}: change the model before wrapping it in DistributedDataParallel")
