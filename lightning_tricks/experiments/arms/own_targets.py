"""Targets that a network makes itself: how far the loss then falls does not say how far a training comes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_tricks.experiments.arms.functions import name_of
from lightning_tricks.experiments.asking.asks import same_draws
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.reach import change_of, loss_with_changed
from lightning_tricks.experiments.training.training import Training
from lightning_tricks.model.batches import tensors_in

_OTHER = 0.1  # of their size: a change of all weights, to see whether a target follows them
_LABELLED = ("cross_entropy", "nll_loss", "multi_margin_loss")
_ASKED = 4  # weights that moved without a gradient, of which the loss is asked


def refuse_own_targets(training: Training, batch: Any) -> None:
    """A step that compares what the network puts out with what it puts out without a gradient (SimSiam, pseudo labels).

    Args:
        training: A copy; its weights are changed.
        batch: One batch.

    Raises:
        NotAskedError: It does.
    """
    before = _constants(training, batch)
    if not before:
        return
    with torch.no_grad():
        for parameter in training.module.parameters():
            if parameter.requires_grad:
                parameter.add_(change_of(parameter), alpha=_OTHER)
    after = _constants(training, batch)
    if len(before) != len(after) or not all(map(torch.equal, before, after)):
        raise NotAskedError(
            "its targets are outputs of the network itself, without a gradient: a lower loss is no sign that it learns"
        )


def _constants(training: Training, batch: Any) -> list[Tensor]:
    """What has no gradient and meets outputs of the network outside of it, and was computed with others of these."""
    followed = _Followed()
    hooks = [
        hook
        for module in training.module.modules()
        for hook in (
            module.register_forward_pre_hook(followed.enter),
            module.register_forward_hook(followed.leave, always_call=True),
        )
    ]
    try:
        with same_draws(), followed:
            training.loss(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return followed.constants


def refuse_moving_targets(begun: Training, later: Training, batch: Any) -> None:
    """A loss that depends on weights which no gradient moves, and which have moved (a slow copy, a target network).

    Args:
        begun: At its start; it is copied.
        later: After some steps.
        batch: One batch.

    Raises:
        NotAskedError: It does.
    """
    now = dict(later.module.named_parameters())
    frozen = [(name, p) for name, p in begun.module.named_parameters() if not p.requires_grad and name in now]
    moved = [name for name, p in frozen if p.shape == now[name].shape and not torch.equal(p, now[name])]
    if not moved:
        return
    copied = begun.copy()
    with same_draws():
        before = float(copied.loss(batch).detach())
    for name in moved[:_ASKED]:
        if loss_with_changed(copied, batch, copied.module.get_parameter(name)) != before:
            raise NotAskedError(
                f"its targets move with the training: the loss depends on {name}, which changes without a gradient, "
                "and a lower loss is no sign that it learns"
            )


class _Followed(TorchFunctionMode):
    """What a network puts out, and all that is computed from it, outside of its modules too."""

    def __init__(self) -> None:
        super().__init__()
        self.constants: list[Tensor] = []
        self._own: dict[int, Tensor] = {}  # held, so that no other tensor gets its place
        self._depth = 0

    def enter(self, module: nn.Module, args: Any) -> None:
        self._depth += 1

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._depth -= 1
        if any(p.requires_grad for p in module.parameters()):
            self._keep(output)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [tensor for tensor in tensors_in((args, kwargs or {})) if id(tensor) in self._own]
        if given:
            self._keep(result)
            # Within a module it is a part of the network; a gradient that is cut there is another question. Class
            # numbers are targets where a loss takes them, and indices elsewhere.
            if not self._depth and any(tensor.requires_grad for tensor in given):
                fixed = [tensor for tensor in given if not tensor.requires_grad]
                self.constants += [t.clone() for t in fixed if t.is_floating_point() or name_of(func) in _LABELLED]
        return result

    def _keep(self, found: Any) -> None:
        self._own |= {id(tensor): tensor for tensor in tensors_in(found) if tensor.dtype != torch.bool}
