"""One training step of all members at once: mapped over the stack by torch.func.vmap, or one after the other."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks._compat.functorch import call_mapped, is_mapped
from lightning_tricks._compat.torch_modules import buffers_of, children_of, parameters_of
from lightning_tricks._compat.trees import tree_flatten, tree_unflatten
from lightning_tricks.ensemble.data.loader import rows
from lightning_tricks.ensemble.mapping.batched import BatchedLayers
from lightning_tricks.ensemble.mapping.functions import MappedFunctions, NotMappableError
from lightning_tricks.ensemble.mapping.logged_values import (
    LoggedValues,
    StackedLoggedValues,
    capture_logging,
    metrics_of,
    split_by_member,
)
from lightning_tricks.ensemble.mapping.stack import Stack


def mapped_losses(
    stack: Stack,
    active: list[int],
    batch: Any,
    batch_idx: int,
    *,
    batched: BatchedLayers | None = None,
    functions: MappedFunctions | None = None,
    checked: bool = False,
    same_draws: bool = False,
) -> tuple[Tensor | None, dict[int, LoggedValues] | StackedLoggedValues]:
    """Losses ``[K]`` of all members of a stack by one mapped call of the first one's ``training_step``.

    Args:
        stack: The members that take part.
        active: Their numbers, under which what they logged is returned.
        batch: A tree of tensors ``[K, B, ...]``.
        batch_idx: Passed on.
        batched: Computes the layers that it knows on the stack itself.
        functions: Hears which functions of torch are called.
        checked: Look for what a mapped call would lose in silence.
        same_draws: All members get the same random numbers.

    Raises:
        NotMappableError: What ``checked`` found.
    """
    member, logged = stack.members[0], LoggedValues()
    leaves, spec = tree_flatten(batch)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    step = _checked_step if checked else _step
    functions = functions or MappedFunctions(stacked=batched is not None)
    skipped = False

    def one(values: list[Tensor], tensors: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        nonlocal skipped
        own = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            own[place] = tensor
        known = contextlib.nullcontext() if batched is None else batched.used()
        with capture_logging(member, logged, metrics=stack.metrics), stack.substituted(values), known, functions:
            loss = step(member, tree_unflatten(own, spec), batch_idx)
        skipped = loss is None
        return torch.zeros(()) if loss is None else loss, logged.tensors

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # where that matters the loop is faster
        losses, logged.tensors = call_mapped(
            one, stack.views(), [leaves[place] for place in places], same_draws=same_draws
        )
    found = split_by_member(logged, active) if logged.calls else StackedLoggedValues(logged, list(active))
    return None if skipped else losses, found


def _step(member: Any, batch: Any, batch_idx: int) -> Tensor | None:
    return loss_of(member.training_step(batch, batch_idx))


def _checked_step(member: Any, batch: Any, batch_idx: int) -> Tensor | None:
    given, before = dict(member.named_buffers()), _plain_attributes(member)
    loss = _step(member, batch, batch_idx)
    raise_on_lost_tensors(member, given)
    changed = [name for name, value in _plain_attributes(member).items() if before.get(name, value) != value]
    if changed:
        raise NotMappableError(f"it changes attribute {changed[0]}, which each member has for itself")
    return loss


def raise_on_lost_tensors(member: nn.Module, given: dict[str, Tensor]) -> None:
    """Raise where a mapped step left a tensor that would be lost: in a buffer's place, or in an attribute."""
    for name, buffer in member.named_buffers():
        if buffer is not given.get(name):
            raise NotMappableError(f"it puts a new tensor in the place of buffer {name}")
    for path, module in member.named_modules():
        replaced = {id(owner) for owner in (parameters_of(module), buffers_of(module), children_of(module))}
        for name, value in vars(module).items():
            if id(value) not in replaced and _holds_mapped(value):
                raise NotMappableError(f"it keeps a tensor of the step in {path + '.' if path else ''}{name}")


def _plain_attributes(member: nn.Module) -> dict[str, Any]:
    """Numbers, words and the lengths of lists in the attributes of a member's modules, without those of its metrics."""
    found: dict[str, Any] = {}
    metrics = tuple(metrics_of(member))
    for path, module in member.named_modules():
        if path.startswith(metrics) and metrics:
            continue
        for name, value in vars(module).items():
            if isinstance(value, (bool, int, float, str)) and not name.startswith("_"):
                found[f"{path + '.' if path else ''}{name}"] = value
            elif isinstance(value, (list, dict, set)) and not name.startswith("_"):
                found[f"{path + '.' if path else ''}{name}"] = len(value)
    return found


def _holds_mapped(value: Any, depth: int = 3) -> bool:
    if isinstance(value, Tensor):
        return is_mapped(value)
    if depth and isinstance(value, (list, tuple, set)):
        return any(_holds_mapped(item, depth - 1) for item in value)
    if depth and isinstance(value, dict):
        return any(_holds_mapped(item, depth - 1) for item in value.values())
    return False


def looped_losses(
    members: list[Any], active: list[int], batch: Any, batch_idx: int
) -> tuple[Tensor | None, dict[int, LoggedValues]]:
    """Losses ``[K]`` of members, one ``training_step`` after the other."""
    losses: list[Tensor] = []
    all_logged: dict[int, LoggedValues] = {}
    for row, (number, member) in enumerate(zip(active, members, strict=True)):
        all_logged[number] = LoggedValues()
        with capture_logging(member, all_logged[number]):
            loss = loss_of(member.training_step(rows(batch, row), batch_idx))
        if loss is not None:
            losses.append(loss)
    return torch.stack(losses) if losses else None, all_logged


def loss_of(output: Any) -> Tensor | None:
    """The loss that a training step returned: itself, or under "loss"."""
    if isinstance(output, dict):
        output = output.get("loss")
    if output is not None and not isinstance(output, Tensor):
        raise TypeError(f"training_step of a member returned a {type(output).__name__}, not a loss, a dict or None")
    return output
