"""Whether what a caller gives as the optimiser can be that of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn


def check_optimizer(optimizer: Any) -> None:
    """A TypeError where this cannot be the optimiser of a training."""
    if isinstance(optimizer, type):
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer, got the class {optimizer.__name__}: call it, such as "
            f"{optimizer.__name__}(model.parameters())"
        )
    # Wrappers such as those of sharded training need not be of torch's class.
    if not (hasattr(optimizer, "param_groups") and hasattr(optimizer, "register_step_pre_hook")):
        shown = f" {optimizer!r}" if isinstance(optimizer, str) else ""
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer such as torch.optim.Adam(model.parameters()), got "
            f"{type(optimizer).__name__}{shown}"
        )


def check_optimizer_of(model: nn.Module, optimizer: Any) -> None:
    """The same, and a ValueError where it trains another model."""
    check_optimizer(optimizer)
    own = {id(p) for p in model.parameters()}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise ValueError(
            f"the optimizer {type(optimizer).__name__} holds no parameter of this model, {type(model).__name__}: "
            "make it from this model's parameters()"
        )


def listed(given: Any) -> list[Any]:
    """One optimiser, several or None as a list."""
    if given is None:
        return []
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
