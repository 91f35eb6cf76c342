"""From what the members' ``configure_optimizers`` return to one optimiser for all of them, where that is the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer, lr_scheduler

from lightning_tricks._compat.torch_optim import skip_graph_capture_check
from lightning_tricks.ensemble.mapping.stack import Stack

# Every number of these updates depends on its own gradient alone, so that K members in one tensor are K members.
ELEMENTWISE = (
    "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adadelta", "Adamax", "Rprop", "ASGD",
)  # fmt: skip
_FUSED = {"cpu": ("SGD", "Adam", "AdamW", "Adagrad"), "cuda": ("SGD", "Adam", "AdamW")}


def optimizers_and_schedulers(configured: Any) -> tuple[list[Optimizer], list[dict[str, Any]]]:
    """The optimisers and the schedulers (as Lightning's dictionaries) in what ``configure_optimizers`` returned."""
    if configured is None:
        return [], []
    if isinstance(configured, Optimizer):
        return [configured], []
    if isinstance(configured, dict):
        schedulers = [configured["lr_scheduler"]] if configured.get("lr_scheduler") is not None else []
        return [configured["optimizer"]], [_scheduler(item, configured) for item in schedulers]
    if len(configured) == 2 and isinstance(configured[0], (list, tuple)):
        return list(configured[0]), [_scheduler(item) for item in configured[1]]
    parts = [optimizers_and_schedulers(item) for item in configured]
    return [one for part in parts for one in part[0]], [one for part in parts for one in part[1]]


def _scheduler(item: Any, around: dict[str, Any] | None = None) -> dict[str, Any]:
    own = dict(item) if isinstance(item, dict) else {"scheduler": item}
    if around is not None and "monitor" in around:
        own.setdefault("monitor", around["monitor"])
    return {"interval": "epoch", "frequency": 1, "monitor": "val_loss", "strict": True, **own}


def why_separate(members: list[Any], configured: list[Any]) -> str | None:
    """Why K members need K optimisers; None where one over their stacked weights does the same."""
    if not members[0].automatic_optimization:
        return "it optimises by hand (automatic_optimization is False)"
    taken = [optimizers_and_schedulers(item) for item in configured]
    optimizers, schedulers = taken[0]
    if len(optimizers) != 1:
        return f"configure_optimizers returned {len(optimizers)} optimisers"
    kind = type(optimizers[0])
    if kind.__module__.split(".")[0] != "torch" or kind.__name__ not in ELEMENTWISE:
        return f"{kind.__name__} updates a parameter as a whole, or calls the training step again"
    for entry in schedulers:
        if isinstance(entry["scheduler"], lr_scheduler.ReduceLROnPlateau):
            return "ReduceLROnPlateau sets a learning rate for each member"
    frozen = [{name for name, value in member.named_parameters() if not value.requires_grad} for member in members]
    for number, own in enumerate(frozen):
        if own != frozen[0]:
            return f"members 0 and {number} differ in what is frozen (requires_grad), first in {min(own ^ frozen[0])}"
    for number, (others, _) in enumerate(taken):
        if _settings(others[0], members[number]) != _settings(optimizers[0], members[0]):
            return f"the optimisers of members 0 and {number} have different settings"
    return None


def _settings(optimizer: Optimizer, member: Any) -> list[dict[str, Any]]:
    names = {id(parameter): name for name, parameter in member.named_parameters()}
    return [
        {
            **{key: _comparable(value) for key, value in group.items() if key != "params"},
            "params": [names.get(id(parameter)) for parameter in group["params"]],
        }
        for group in optimizer.param_groups
    ]


def _comparable(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def move_to_stack(optimizer: Optimizer, stack: Stack) -> list[int]:
    """Let an optimiser of the first member, fresh from its constructor, step all members of the stack.

    The optimiser object stays the same, so that its schedulers go on. Where nothing was said about it, the fused
    implementation is used, on the CPU and on a GPU.

    Returns:
        The groups, by number, for which that was done.
    """
    replaced = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in stack.names:
                raise ValueError(
                    "configure_optimizers put a tensor into the optimiser that is no parameter of the member"
                )
            replaced[parameter] = stack.parameters[stack.names[id(parameter)]]
    states: dict[Tensor, Any] = {}
    for old, state in optimizer.state.items():  # Adagrad has one from the start
        name = stack.names[id(old)]
        states[replaced[old]] = {
            key: torch.stack([stack.transpose(name, value)] * len(stack.members)).contiguous()
            if isinstance(value, Tensor) and value.shape == old.shape and value.dim()
            else value
            for key, value in state.items()
        }
    optimizer.state.clear()
    optimizer.state.update(states)
    replace_parameters(optimizer, replaced)
    kind = type(optimizer).__name__
    devices = {value.device.type for value in stack.parameters.values()}
    if devices == {"cpu"}:
        skip_graph_capture_check(optimizer)
    fused = []
    if len(devices) == 1 and kind in _FUSED.get(devices.pop(), ()):
        for number, group in enumerate(optimizer.param_groups):
            free = group.get("fused") is None and group.get("foreach") is None and not group.get("differentiable")
            if free and all(parameter.is_floating_point() for parameter in group["params"]):
                group["fused"] = True
                fused.append(number)
    return fused


def unfuse_sparse(optimizer: Optimizer, fused: list[int]) -> None:
    """Take the ordinary implementation again where a gradient turned out to be sparse, which the fused one refuses."""
    for group in (optimizer.param_groups[number] for number in fused):
        if group["fused"] and any(value.grad is not None and value.grad.is_sparse for value in group["params"]):
            group["fused"] = False


def replace_parameters(optimizer: Optimizer, replaced: dict[Any, Any]) -> None:
    """Put new parameters in the place of old ones; their state goes with them if it is there under the old ones."""
    for group in optimizer.param_groups:
        group["params"] = [replaced.get(parameter, parameter) for parameter in group["params"]]
    for old, new in replaced.items():
        if old in optimizer.state:
            optimizer.state[new] = optimizer.state.pop(old)


def select_rows(optimizer: Optimizer, replaced: dict[Any, Any], rows: list[int]) -> None:
    """After a stack let members go: the optimiser's state for the rest."""
    replace_parameters(optimizer, replaced)
    for old, new in replaced.items():
        for key, value in optimizer.state.get(new, {}).items():
            if isinstance(value, Tensor) and value.shape == old.shape:
                optimizer.state[new][key] = value[rows]


def clip(gradients: list[Tensor], value: float, algorithm: str | None) -> None:
    """Clip stacked gradients ``[K, ...]`` as K Trainers would: each member by its own norm.

    ``g_k <- g_k * min(1, value / (|g_k| + 1e-6))`` (Pascanu et al. 2013, Algorithm 1), or every number to
    ``[-value, value]``.
    """
    if not gradients:
        return
    if str(getattr(algorithm, "value", algorithm) or "norm") == "value":
        for gradient in gradients:
            gradient.clamp_(-value, value)
        return
    scale = (value / (torch.stack([_squares(gradient) for gradient in gradients]).sum(0).sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        if gradient.is_sparse:
            rows = gradient.coalesce()
            numbers = rows.values() * _like(scale[rows.indices()[0]], rows.values())
            gradient.copy_(torch.sparse_coo_tensor(rows.indices(), numbers, rows.shape, check_invariants=False))
        else:
            gradient.mul_(_like(scale, gradient))


def _squares(gradient: Tensor) -> Tensor:
    """``[K]``: the squared length of each member's part."""
    if not gradient.is_sparse:
        return gradient.flatten(1).pow(2).sum(1) if gradient.dim() > 1 else gradient.pow(2)
    rows = gradient.coalesce()
    sums = rows.values().new_zeros(len(gradient))
    return sums.index_add_(0, rows.indices()[0], rows.values().flatten(1).pow(2).sum(1))


def _like(scale: Tensor, gradient: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (gradient.dim() - 1))
