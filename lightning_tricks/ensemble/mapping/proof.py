"""Whether a mapped training step computes what a looped one does: losses, gradients and buffers, member by member."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_tricks._compat.torch_modules import DropoutNd
from lightning_tricks._compat.trees import tree_map
from lightning_tricks.ensemble.data.loader import rows
from lightning_tricks.ensemble.mapping.batched import BatchedLayers
from lightning_tricks.ensemble.mapping.functions import NotMappableError
from lightning_tricks.ensemble.mapping.stack import Stack
from lightning_tricks.ensemble.mapping.steps import looped_losses, mapped_losses
from lightning_tricks.model.isolated import keep_random_numbers
from lightning_tricks.nn.dropout import AlphaDropout

LOSS = "the loss"


@dataclass(frozen=True)
class Outcome:
    """What one training step of all members left: tensors ``[K, ...]`` by name."""

    losses: Tensor | None
    gradients: dict[str, Tensor | None]
    buffers: dict[str, Tensor]


def looped_outcome(stack: Stack, active: list[int], batch: Any, batch_idx: int) -> Outcome:
    """Of one member's training step after the other, each with the same random numbers and without dropout."""
    losses: list[Tensor] = []
    with _repeatable(stack):
        for row, number in enumerate(active):
            _seed(stack)
            own, _ = looped_losses([stack.members[row]], [number], rows(batch, slice(row, row + 1)), batch_idx)
            if own is not None:
                own.sum().backward()
                losses.append(own.detach())
        stack.collect_gradients()
        return _taken(stack, torch.cat(losses) if losses else None)


def mapped_outcome(
    stack: Stack,
    active: list[int],
    batch: Any,
    batch_idx: int,
    *,
    batched: BatchedLayers | None = None,
    checked: bool = False,
) -> Outcome:
    """Of the mapped step, every member with the random numbers that each has in ``looped_outcome``.

    Raises:
        NotMappableError: With ``checked``, what the step does that mapping would lose in silence.
    """
    with _repeatable(stack):
        _seed(stack)
        before = _states_of_others()
        losses, _ = mapped_losses(stack, active, batch, batch_idx, batched=batched, checked=checked, same_draws=True)
        if checked and _states_of_others() != before:
            raise NotMappableError("it draws Python's or NumPy's random numbers, which each member has for itself")
        if losses is not None:
            losses.sum().backward()
        return _taken(stack, None if losses is None else losses.detach())


def first_difference(mapped: Outcome, looped: Outcome, active: list[int]) -> str | None:
    """The first tensor that is not the same to rounding, and the member; None where all are."""
    pairs: list[tuple[str, Tensor | None, Tensor | None]] = [(LOSS, mapped.losses, looped.losses)]
    pairs += [(name, mapped.buffers[name], value) for name, value in looped.buffers.items()]
    pairs += [(f"the gradient of {name}", mapped.gradients[name], value) for name, value in looped.gradients.items()]
    sizes = _sizes(looped.gradients)
    for name, one, two in pairs:
        if one is None or two is None:
            if one is not two:
                return f"{name}, which only the {'mapped' if two is None else 'looped'} step has"
            continue
        noise = sizes if name.startswith("the gradient") else None
        row = _different_row(one, two, noise)
        if row is not None:
            return f"{name}, member {active[row]}"
    return None


def _sizes(gradients: dict[str, Tensor | None]) -> Tensor | None:
    """``[K]``: the largest number in any of a member's gradients; what is tiny beside it is rounding."""
    found = [_dense(value).flatten(1).abs().amax(1).double() for value in gradients.values() if value is not None]
    return torch.stack(found).amax(0).nan_to_num() if found else None


def _different_row(one: Tensor, two: Tensor, noise: Tensor | None) -> int | None:
    one, two = _dense(one).flatten(1), _dense(two).flatten(1)
    if one.shape != two.shape:
        return 0
    if not one.is_floating_point() and not one.is_complex():
        wrong = (one != two).any(1)
    else:
        eps = max(torch.finfo(value.dtype).eps for value in (one, two))
        if torch.is_autocast_enabled(one.device.type):
            eps = max(eps, torch.finfo(torch.get_autocast_dtype(one.device.type)).eps)
        apart = torch.where(one.isnan() & two.isnan() | (one == two), 0.0, (one - two).abs()).double().amax(1)
        size = two.abs().double().nan_to_num(posinf=0.0).amax(1)
        wrong = ~(apart <= 4 * eps**0.5 * size + (0.0 if noise is None else eps**0.75 * noise))
    return int(wrong.nonzero()[0]) if bool(wrong.any()) else None


def _dense(value: Tensor) -> Tensor:
    value = value.detach()
    value = value.to_dense() if value.layout != torch.strided else value
    return value if value.dim() > 1 else value.unsqueeze(1)


def _taken(stack: Stack, losses: Tensor | None) -> Outcome:
    gradients = {
        name: None if value.grad is None else stack.transpose(name, value.grad)
        for name, value in stack.parameters.items()
    }
    return Outcome(losses, gradients, {name: value.clone() for name, value in stack.buffers.items()})


@contextlib.contextmanager
def _repeatable(stack: Stack) -> Iterator[None]:
    """A block without dropout, after which random numbers and buffers are as before, and no gradients are left."""
    before = [buffer.clone() for buffer in stack.buffers.values()]
    modules = [module for member in stack.members for module in member.modules()]
    drops = [module for module in modules if isinstance(module, (DropoutNd, AlphaDropout))]
    shares = [module.p for module in drops]
    try:
        for module in drops:
            module.p = 0.0
        with keep_random_numbers(stack.devices), _SameDraws():
            yield
    finally:
        for module, share in zip(drops, shares, strict=True):
            module.p = share
        for buffer, old in zip(stack.buffers.values(), before, strict=True):
            buffer.copy_(old)
        for parameter in stack.parameters.values():
            parameter.grad = None


def _seed(stack: Stack) -> None:
    random.seed(0)
    np.random.seed(0)
    if all(value.device.type == "cpu" for value in stack.parameters.values()):
        torch.default_generator.manual_seed(0)  # torch.manual_seed keeps a traceback for every device not yet in use
    else:
        torch.manual_seed(0)


def _states_of_others() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, np.asarray(keys).tobytes(), *rest


# Where each function takes the share that is dropped, and under which name.
_SHARES: dict[Any, tuple[int, str]] = {
    **{
        getattr(owner, name): (1, "p")
        for owner in (F, torch)
        for name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
                     "dropout_", "alpha_dropout_", "feature_dropout", "native_dropout")
        if hasattr(owner, name)
    },
    F.scaled_dot_product_attention: (4, "dropout_p"),
    F.multi_head_attention_forward: (10, "dropout_p"),
}  # fmt: skip


class _SameDraws(TorchFunctionMode):
    """What a forward draws is the same in both ways, as far as ``vmap`` alone does not see to it.

    Dropout drops nothing: its masks follow the order in memory. Bernoulli numbers come from uniform ones.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _SHARES:
            place, name = _SHARES[func]
            if len(args) > place:
                args = (*args[:place], 0.0, *args[place + 1 :])
            else:
                kwargs[name] = 0.0
        elif func in (torch.bernoulli, Tensor.bernoulli) and len(args) == 1 and not kwargs:
            return torch.rand(args[0].shape, dtype=args[0].dtype, device=args[0].device).lt(args[0]).to(args[0].dtype)
        return func(*args, **kwargs)


def in_double(members: list[nn.Module], batch: Any) -> tuple[list[nn.Module], Any]:
    """Members and batch in float64, where two ways of computing the same differ by next to nothing."""

    def wide(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return [member.double() for member in members], tree_map(wide, batch)
