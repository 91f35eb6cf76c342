"""The members of an ensemble: differently initialised from a seed, of one structure, with hooks that can be shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from lightning_tricks._compat import lightning as _lightning
from lightning_tricks._compat.lightning_module import overrides
from lightning_tricks.ensemble.data.bootstrap import seeds

# Called once for every member that has its own; the others of Lightning's hooks see one optimiser or one batch.
FORWARDED_HOOKS = (
    "on_fit_start", "on_fit_end", "on_train_start", "on_train_end", "on_train_epoch_start", "on_train_epoch_end",
    "on_validation_start", "on_validation_end", "on_validation_epoch_start", "on_validation_epoch_end",
    "on_test_start", "on_test_end", "on_test_epoch_start", "on_test_epoch_end",
)  # fmt: skip
_REFUSED_HOOKS = (
    "backward", "configure_callbacks", "configure_gradient_clipping", "configure_model", "configure_sharded_model",
    "lr_scheduler_step", "on_after_backward", "on_after_batch_transfer", "on_before_backward",
    "on_before_batch_transfer", "on_before_optimizer_step", "on_before_zero_grad", "on_load_checkpoint",
    "on_save_checkpoint", "on_train_batch_end", "on_train_batch_start", "on_validation_batch_end",
    "on_validation_batch_start", "optimizer_step", "optimizer_zero_grad", "transfer_batch_to_device",
)  # fmt: skip


def make_members(make_member: Callable[[], Any], num_members: int, seed: int = 0) -> list[Any]:
    """Call ``make_member`` K times, each time from a seed of its own; the global random numbers stay as they are.

    Raises:
        ValueError: ``num_members`` is under 1, or the members differ in structure.
        TypeError: A member is no LightningModule, or overrides a hook that an ensemble cannot call for each member.

    >>> members = make_members(lambda: nn.Linear(2, 1), 2)
    Traceback (most recent call last):
    ...
    TypeError: make_member() returned a Linear: a member has to be a LightningModule with its own training_step
    """
    if isinstance(num_members, bool) or not isinstance(num_members, int) or num_members < 1:
        raise ValueError(f"num_members must be a whole number of at least 1, got {num_members!r}")
    if isinstance(make_member, nn.Module):
        kind = type(make_member).__name__
        raise TypeError(f"make_member must be a function that makes a member, got a {kind}: give lambda: {kind}(...)")
    members: list[Any] = []
    with torch.random.fork_rng():
        for member_seed in seeds(seed, num_members):
            torch.manual_seed(member_seed)
            members.append(make_member())
            _check(members)
    return members


def _check(members: list[Any]) -> None:
    first, last = members[0], members[-1]
    name = type(last).__name__
    if not isinstance(last, _lightning.LightningModule):
        raise TypeError(
            f"make_member() returned a {name}: a member has to be a LightningModule with its own training_step"
        )
    refused = [hook for hook in _REFUSED_HOOKS if overrides(last, hook)]
    if refused:
        raise TypeError(
            f"{name} overrides {', '.join(refused)}: this hook sees one optimiser or one batch, and an ensemble has "
            "those of all members; move what it does into training_step or into a callback of the ensemble"
        )
    lazy = [key for key, value in last.named_parameters() if is_lazy(value)]
    if lazy:
        raise ValueError(f"parameter {lazy[0]} of {name} has no shape yet: run the member once inside make_member")
    if len(members) > 1:
        if last is first:
            raise ValueError("make_member() returned the same object twice: it has to build a new member at each call")
        difference = _difference(first, last)
        if difference:
            raise ValueError(
                f"members 0 and {len(members) - 1} differ in structure, first in {difference}; an ensemble needs "
                "members of one structure (their weights may differ)"
            )


def _difference(first: nn.Module, other: nn.Module) -> str | None:
    """The first parameter or buffer that is not the same in two modules, with both shapes."""
    one, two = ({**dict(module.named_parameters()), **dict(module.named_buffers())} for module in (first, other))
    for key in [*one, *(key for key in two if key not in one)]:
        here, there = (
            f"{tuple(side[key].shape)} {str(side[key].dtype).removeprefix('torch.')}" if key in side else "absent"
            for side in (one, two)
        )
        if here != there:
            return f"{key}: {here} and {there}"
    return None
