"""Histories by hand, and a short training of two seeds."""

from __future__ import annotations

import functools

import torch
from torch import nn

import lightning_tricks as lt


def look(step, std=1.0, signal=0.01, lr=0.1, ratio=1e-3, under="", **fields):
    """A network of two layers; ``std`` of the first, ``signal`` at it over that at the last."""
    name = under + "one"
    weighted = (
        lt.WeightedRecord(name, operation="linear", order=0, std=std, error_signal=signal, weight=f"{name}.weight"),
        lt.WeightedRecord(f"{under}two", operation="linear", order=2, std=1.0, error_signal=1.0),
    )
    activations = (lt.ActivationRecord(f"{under}act", function="relu", order=1, std=std, linearity=0.7),)
    parameters = (
        lt.ParameterRecord(f"{name}.weight", name, (4, 4), 4, weight=0.3, update=0.3 * ratio, update_ratio=ratio),
    )
    return lt.Snapshot(step, 1.0, learning_rate=lr, weighted=weighted, activations=activations,
                       parameters=parameters, **fields)  # fmt: skip


def run(steps=range(0, 80, 10), **changes):
    """``std=lambda step: ...`` and so on."""
    return [look(step, **{name: change(step) for name, change in changes.items()}) for step in steps]


@functools.cache
def trained(seed, every=4):
    """A doctor that watched a small training."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / parameter[0].numel()) ** 0.5)
            if parameter.dim() == 1:
                parameter.zero_()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    with lt.watch(net, optimizer, report=False, every_n_steps=every, preflight=False) as doctor:
        for _ in range(33):
            x = torch.randn(64, 8, generator=generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), x[:, :3].argmax(1)).backward()
            optimizer.step()
    return doctor
