"""Members trained in one mapped call or one after the other: what works, and what is faster."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks.ensemble.stack import Stack
from lightning_tricks.ensemble.steps import NotMappableError, looped_losses, mapped_losses

_PLAIN = (bool, int, float, str, type(None), tuple)
_OWN_STATE = {"training", "_trainer", "_fabric", "_current_fx_name"}


def why_not_mappable(members: list[Any], device: torch.device) -> str | None:
    """What can be seen without running a step; None if nothing speaks against a mapped step."""
    for path, module in members[0].named_modules():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            return f"{path} is a {type(module).__name__}, which torch.func.vmap cannot map"
    if device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return "torch.func.vmap ignores autocast on the CPU"
    difference = _different_attribute(members)
    return None if difference is None else f"the members differ in {difference}"


def _different_attribute(members: list[Any]) -> str | None:
    """An attribute outside parameters and buffers that is not the same in all members."""
    first = dict(members[0].named_modules())
    for member in members[1:]:
        for path, module in member.named_modules():
            other = first.get(path)
            if type(module) is not type(other):
                return f"the type of {path or 'the member'}"
            for name, value in vars(module).items():
                if name in _OWN_STATE:
                    continue
                there = vars(other).get(name)
                if isinstance(value, _PLAIN) and isinstance(there, _PLAIN):
                    same = value is there or repr(value) == repr(there)
                elif isinstance(value, Tensor) and isinstance(there, Tensor):
                    same = value.shape == there.shape and torch.equal(value, there)
                else:
                    same = True
                if not same:
                    return f"attribute {path + '.' if path else ''}{name}"
    return None


def try_mapped(members: list[Any], active: list[int], batch: Any, batch_idx: int, trainer: Any) -> str | None:
    """Run one mapped step on copies, forward and backward: what fails, or None. Nothing of it stays."""
    try:
        _timed(members, active, batch, batch_idx, trainer, mapped=True, careful=True)
    except NotMappableError as error:
        return str(error)
    except Exception as error:  # whatever vmap raises: the loop will raise it again if it is the member's fault
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return lines[0]
    return None


def faster(members: list[Any], active: list[int], batch: Any, batch_idx: int, trainer: Any) -> tuple[float, float]:
    """Seconds of a mapped and of a looped step, forward and backward, the faster of two each, on copies."""
    mapped = _timed(members, active, batch, batch_idx, trainer, mapped=True, repeats=2)
    looped = _timed(members, active, batch, batch_idx, trainer, mapped=False, repeats=2)
    return mapped, looped


def _timed(
    members: list[Any],
    active: list[int],
    batch: Any,
    batch_idx: int,
    trainer: Any,
    *,
    mapped: bool,
    repeats: int = 1,
    careful: bool = False,
) -> float:
    trial = copy.deepcopy(members)  # without the Trainer, which a LightningModule does not copy
    for member in trial:
        member.trainer = trainer
    device = next((value.device for value in members[0].parameters()), torch.device("cpu"))
    seconds = float("inf")
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        stack = Stack(trial)
        for _ in range(repeats):
            _wait(device)
            start = time.perf_counter()
            if mapped:
                losses, _ = mapped_losses(stack, active, batch, batch_idx, careful=careful)
            else:
                losses, _ = looped_losses(trial, active, batch, batch_idx)
            if losses is not None:
                losses.sum().backward()
                if not mapped:
                    stack.collect_gradients()
            _wait(device)
            seconds = min(seconds, time.perf_counter() - start)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
