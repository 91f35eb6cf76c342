"""Trainings whose loss or step is their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lightning_tricks.diagnosis import Finding
from lightning_tricks.probes import Probe, Snapshot
from lightning_tricks.watch.first_step import FirstStep
from lightning_tricks.watch.selection import is_probed

from .trainings import digits

Loss = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[Tensor, Tensor, int], None]


def look(
    model: nn.Module,
    take_step: Step,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    *,
    steps: int = 60,
    every: int = 25,
    batch: int = 64,
    data: tuple[Tensor, Tensor] | None = None,
    preflight: bool = False,
) -> list[Snapshot]:
    """The snapshots of a training that makes its steps by itself."""
    x, y = digits() if data is None else data
    generator = torch.Generator().manual_seed(0)
    history: list[Snapshot] = []
    first_step = FirstStep(preflight)
    for step in range(steps):
        chosen = torch.randint(len(x), (batch,), generator=generator)
        probe = Probe(model, list(optimizers), step=step)
        given = x[chosen], y[chosen]
        if is_probed(step, every):
            first_step.begin(probe, given, None, 1)
            probe.open()
        take_step(*given, step)
        if is_probed(step, every):
            probe.close()
            first_step.run(probe)
            history.append(first_step.enter(probe.snapshot()))
    return history


def fit(
    model: nn.Module,
    loss: Loss = nn.functional.cross_entropy,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    steps: int = 60,
    every: int = 25,
    batch: int = 64,
    data: tuple[Tensor, Tensor] | None = None,
    preflight: bool = False,
) -> list[Snapshot]:
    """The snapshots of a training by ``loss(model(x), y)``."""
    stepper = optimizer or torch.optim.Adam(model.parameters(), lr=1e-3)

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        stepper.zero_grad()
        loss(model(x), y).backward()
        stepper.step()

    return look(model, take_step, [stepper], steps=steps, every=every, batch=batch, data=data, preflight=preflight)


def said(findings: Sequence[Finding]) -> list[tuple[str, str | None]]:
    """Severity and layer of what is more than information."""
    return [(finding.severity, finding.layer) for finding in findings if finding.rank > 0]
