"""Learning rates, batches and decay at the edge of what is usual."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..kind import Plan, healthy
from .modules import Supervised, adam, convnet, digits_plan, mlp


@healthy("long warm-up", "accuracy", 0.93)
def long_warmup(seed: int) -> Plan:
    """AdamW whose rate rises over 400 of 600 steps, as 4000 of 6000 in a long training."""
    net = mlp(64, 64, 64, 10, activation=nn.GELU)
    return digits_plan(
        Supervised(net, F.cross_entropy, lambda p: torch.optim.AdamW(p, 1e-3), lambda step: min(step / 400, 1.0)),
        epochs=28,
    )


@healthy("warm-up throughout", "accuracy", 0.65)
def very_long_warmup(seed: int) -> Plan:
    """Nothing but warm-up: the first 600 of its 4000 steps, learning and far from done."""
    net = mlp(64, 64, 10)
    module = Supervised(net, F.cross_entropy, lambda p: torch.optim.AdamW(p, 1e-3), lambda step: min(step / 4000, 1.0))
    return digits_plan(module, epochs=28)


@healthy("slow SGD", "accuracy", 0.85)
def slow_sgd(seed: int) -> Plan:
    """Plain SGD at a small rate: sure and slow."""
    return digits_plan(Supervised(mlp(64, 64, 10), F.cross_entropy, lambda p: torch.optim.SGD(p, 0.01)), epochs=40)


@healthy("cosine to zero", "accuracy", 0.95)
def cosine_to_zero(seed: int) -> Plan:
    """The rate of the last steps is nothing."""
    steps = 25 * 21
    module = Supervised(convnet(), F.cross_entropy, adam(3e-3), lambda s: 0.5 * (1 + math.cos(math.pi * s / steps)))
    return digits_plan(module, 25)


@healthy("warm restarts", "accuracy", 0.93)
def warm_restarts(seed: int) -> Plan:
    """The rate falls to nothing and jumps back, three times (Loshchilov and Hutter 2017)."""
    module = Supervised(
        mlp(64, 64, 10),
        F.cross_entropy,
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        lambda step: 0.5 * (1 + math.cos(math.pi * (step % 175) / 175)),
    )
    return digits_plan(module, 25)


@healthy("decay .1 to convergence", "accuracy", 0.94)
def decay_to_convergence(seed: int) -> Plan:
    """AdamW with decay .1 until the loss is nearly nothing: the decay is most of what is left of a step."""
    module = Supervised(mlp(64, 128, 10), F.cross_entropy, lambda p: torch.optim.AdamW(p, 3e-3, weight_decay=0.1))
    return digits_plan(module, epochs=60)


@healthy("batch size 8", "accuracy", 0.93)
def small_batches(seed: int) -> Plan:
    return digits_plan(Supervised(mlp(64, 64, 10), F.cross_entropy, adam(1e-3)), batch=8, epochs=6)


@healthy("accumulation of 8 batches", "accuracy", 0.93)
def accumulation(seed: int) -> Plan:
    module = Supervised(mlp(64, 64, 10), F.cross_entropy, adam(5e-3))
    return digits_plan(module, batch=8, epochs=12, look=25, options={"accumulate_grad_batches": 8})
