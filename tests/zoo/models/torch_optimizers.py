"""Every optimiser of torch, on a small network."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .entry import Entry
from .small import entry, tokens

OPTIMIZERS = [
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "LBFGS",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
]
MORE = {
    "Adam, foreach": lambda p: torch.optim.Adam(p, 0.01, foreach=True),
    "AdamW, fused": lambda p: torch.optim.AdamW(p, 0.01, fused=True),
    "Adam, amsgrad": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "SGD of two groups, Nesterov": lambda p: _sgd_of_groups(p),
    "LBFGS, strong Wolfe": lambda p: torch.optim.LBFGS(p, max_iter=3, line_search_fn="strong_wolfe"),
}


def _sgd_of_groups(parameters: Any) -> torch.optim.Optimizer:
    first, *others = parameters
    return torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": others}], lr=0.01)


def _optimized(name: str, optimizer: Callable[[Any], torch.optim.Optimizer]) -> Entry:
    bias = name not in ("Muon",)  # for matrices only
    make = functools.partial(lambda: nn.Sequential(nn.Linear(6, 8, bias), nn.ReLU(), nn.Linear(8, 3, bias)))
    return entry(name, make, optimizer=optimizer, group="torch optimisers")


def _optimizers() -> list[Entry]:
    plain = {n: functools.partial(getattr(torch.optim, n), lr=0.01) for n in OPTIMIZERS if hasattr(torch.optim, n)}
    sparse = entry(
        "SparseAdam",
        lambda: nn.Sequential(nn.Embedding(12, 3, sparse=True), nn.Tanh()),
        tokens,
        optimizer=lambda p: torch.optim.SparseAdam(list(p), 0.01),
        group="torch optimisers",
    )
    return [*(_optimized(name, made) for name, made in {**plain, **MORE}.items()), sparse]


ENTRIES = _optimizers()
