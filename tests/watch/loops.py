"""Plain loops, to be run with and without a doctor."""

from __future__ import annotations

import gc

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as modules

import lightning_tricks as lt


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 3))


def batch(count: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, 6)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def backward(net: nn.Module, share: int = 1) -> torch.Tensor:
    x, y = batch()
    loss = F.cross_entropy(net(x), y) / share
    loss.backward()
    return loss.detach()


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        losses.append(float(backward(net)))
        optimizer.step()
    return losses


def sgd(net: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr, momentum=0.9)


def quiet(net: nn.Module, optimizer, **arguments) -> lt.LoopDoctor:
    return lt.watch(net, optimizer, **{"report": False, "on_problem": "log", **arguments})


ORIGINAL = torch.autograd.backward


def left_behind(net: nn.Module, *optimizers: torch.optim.Optimizer) -> list[str]:
    """What is not as it was before anything was watched."""
    gc.collect()
    places = {
        "forward": modules._global_forward_hooks,
        "forward pre": modules._global_forward_pre_hooks,
        **{f"{name} pre": module._forward_pre_hooks for name, module in net.named_modules()},
        **{f"{name} post": module._forward_hooks for name, module in net.named_modules()},
        **{f"step pre {i}": optimizer._optimizer_step_pre_hooks for i, optimizer in enumerate(optimizers)},
        **{f"step post {i}": optimizer._optimizer_step_post_hooks for i, optimizer in enumerate(optimizers)},
    }
    found = [name for name, hooks in places.items() if hooks]
    if torch.autograd.backward is not ORIGINAL:
        found.append("backward")
    if torch.overrides._get_current_function_mode() is not None:
        found.append("function mode")
    return found
