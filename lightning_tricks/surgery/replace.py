"""replace_modules: exchanges modules of a model by a policy, without losing what the old ones carried.

An optimiser is told by ``hand_over`` which parameters that took away from the model, and which it brought.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_tricks._compat.torch_modules import (
    apply_alone,
    children_of,
    count_state_hooks,
    forward_pre_hooks_of,
    move_call_hooks,
)
from lightning_tricks.init.report import Report
from lightning_tricks.model.layers import Model

__all__ = ["Policy", "hand_over", "refuse_wrapped", "replace_modules"]

Policy = Callable[[str, nn.Module], "nn.Module | None"]


def replace_modules(model: Model, policy: Policy, report: Report | None = None) -> Model:
    """Replaces every module for which the policy returns another one, in place, and returns the model.

    The policy sees each module once, parents first, under its first name; what it returns takes the module's place
    under every name the module has. It is not asked about the inside of a module that it replaced, so a replacement
    may contain the old module, as ``nn.Sequential(old, nn.BatchNorm1d(8))`` does. All answers are collected before
    the first one is applied: when the policy raises, the model is as it was.

    The replacement gets the training flag, the device and the dtype of what it replaces (of the surrounding model
    where the old module has no floating-point tensors), and the old module's forward and backward hooks, whose handles
    stay valid. Inside a scripted module nothing can be replaced; that is reported.

    Args:
        model: Any module. It may be replaced itself: use the return value.
        policy: ``policy(name, module)`` gives the replacement, or None (or the module) to leave it.
        report: Collects what was changed and what had to be left.

    Raises:
        TypeError: The policy returned something that is not a module; the layer is named.
        ValueError: The module to be replaced computes its weight in a hook (``weight_norm``, ``spectral_norm``,
            pruning), which would be lost; the layer is named.

    >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    >>> replace_modules(net, lambda name, module: nn.SELU() if isinstance(module, nn.ReLU) else None)
    Sequential(
      (0): Linear(in_features=4, out_features=4, bias=True)
      (1): SELU()
      (2): Linear(in_features=4, out_features=1, bias=True)
    )
    """
    report = Report() if report is None else report
    answers: dict[nn.Module, nn.Module] = {}
    slots: dict[nn.Module, list[tuple[str, nn.Module | None, str]]] = {}
    scripted: list[tuple[str, str]] = []
    asked: set[nn.Module] = set()
    for name, module, parent, key in _walk(model, answers):
        if module not in asked:
            asked.add(module)
            answer = policy(name, module)
            if answer is not None and not isinstance(answer, nn.Module):
                raise TypeError(
                    f"the policy returned {type(answer).__name__} for layer {name!r}; it has to return a module or None"
                )
            if answer is not None and answer is not module:
                if isinstance(parent, torch.jit.ScriptModule):
                    scripted.append((name, "inside a scripted module; change the model before scripting it"))
                    continue
                _refuse_weight_hooks(name, module, answer)
                answers[module] = answer
        if module in answers:
            slots.setdefault(module, []).append((name, parent, key))

    for old, new in answers.items():
        first, parent, _ = slots[old][0]
        _adopt(old, new, model if parent is None else parent, model)
        lost = _carry_hooks(old, new)
        if lost:
            warnings.warn(f"layer {first!r}: {lost} of its state_dict hooks are not carried over", stacklevel=2)
        for _, parent, key in slots[old]:
            if parent is None:
                model = cast(Model, new)  # the policy answers for its type
            else:
                children_of(parent)[key] = new
        others = [name for name, _, _ in slots[old][1:]]
        shared = f", also at {', '.join(others)}" if others else ""
        report.change(first, f"{type(old).__name__} -> {type(new).__name__}{shared}")
    for name, why in scripted:
        report.leave(name, why)
    return model


def _walk(
    model: nn.Module, replaced: dict[nn.Module, nn.Module]
) -> Iterator[tuple[str, nn.Module, nn.Module | None, str]]:
    """Every slot that holds a module, parents first; shared modules come once for each slot, their inside once.

    ``replaced`` grows while the walk goes on: the inside of what is in it is not entered.
    """
    entered: set[nn.Module] = set()

    def slots_of(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module | None, str]]:
        if module in entered or module in replaced:
            return
        entered.add(module)
        for key, child in list(children_of(module).items()):
            # A parametrization is a part of a weight, not a layer of the network.
            if child is None or key == "parametrizations":
                continue
            path = f"{name}.{key}" if name else key
            yield path, child, module, key
            yield from slots_of(path, child)

    yield "", model, None, ""
    yield from slots_of("", model)


def _refuse_weight_hooks(name: str, old: nn.Module, new: nn.Module) -> None:
    if old in set(new.modules()):
        return
    for hook in forward_pre_hooks_of(old).values():
        kind = type(hook)
        if kind.__module__.startswith("torch.nn.utils"):
            raise ValueError(
                f"layer {name!r} computes its weight in a hook ({kind.__name__}), which replacing it would lose; "
                "remove it first (torch.nn.utils.remove_weight_norm, remove_spectral_norm, prune.remove)"
            )


def _adopt(old: nn.Module, new: nn.Module, parent: nn.Module, model: nn.Module) -> None:
    """Gives ``new`` the training flag, device and dtype of ``old``; what ``new`` took over from ``old`` stays."""
    inherited = set(old.modules())
    like = next((t for module in (old, parent, model) for t in _tensors(module) if t.is_floating_point()), None)

    def convert(t: Tensor) -> Tensor:
        assert like is not None
        return t.to(like.device, like.dtype if t.is_floating_point() else None)

    for module in new.modules():
        if module in inherited:
            continue
        module.training = old.training
        if like is not None and any(True for _ in _tensors(module, recurse=False)):
            apply_alone(module, convert)


def _tensors(module: nn.Module, recurse: bool = True) -> Iterator[Tensor]:
    yield from module.parameters(recurse)
    yield from module.buffers(recurse)


def _carry_hooks(old: nn.Module, new: nn.Module) -> int:
    """Moves the hooks that users attached to ``old``; returns how many cannot be moved."""
    if old in set(new.modules()):
        return 0
    move_call_hooks(old, new)
    return count_state_hooks(old)


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
