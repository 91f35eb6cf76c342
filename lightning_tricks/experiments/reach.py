"""reach: which parameters does the loss depend on, which get a gradient, and which does the optimiser hold?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.experiments.asking.asks import Answer, LossFunction, asks, copied, same_draws
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training import Training
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.watch.annotations import nodes_behind

QUESTION = "Which parameters does the loss depend on, and does its gradient say so?"
_SEED = 0
_ASKED = 16  # parameters without a gradient that are perturbed
_LEAST = 0.1  # size of a change, where the parameter is smaller, as a bias is at first
_STEPS = (4e-3, 1e-3)  # predicted change of the loss along the gradient, over the loss
_MOST_NODES = 50_000
_NAMED = 4


@asks(QUESTION)
def reach(
    model: nn.Module | Training, batch: Any, loss_fn: LossFunction | None = None, optimizer: Any = None
) -> Answer:
    """Which trainable parameters get a gradient; of those without one, whether the loss depends on them nevertheless.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``.
        batch: One batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.
        optimizer: What trains it; the default of :func:`lightning_tricks.checkup`.

    Returns:
        Numbers: of the ``parameters`` that are trainable how many are ``reached`` by a gradient; ``detached``: have
        none though the loss changes when they are changed; ``unused``: have none, and it does not; ``not_held`` by the
        optimiser; ``foreign``: get a gradient, and belong to no module; ``measured_over_predicted``: the change of the
        loss along its gradient over what the gradient predicts.

        How to read it: detached: a ``detach``, ``.data``, ``.item()`` or ``no_grad`` lies between. unused: never
        called, or multiplied by zero. foreign: weights in a Python list. Far from 1, measured over predicted: a
        backward that is not that of its forward, as of straight-through estimators, or one written by hand.

    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> found = reach(net, (torch.randn(64, 8), torch.arange(64) % 2), nn.functional.cross_entropy)
    >>> found.numbers["reached"], round(found.numbers["measured_over_predicted"], 2)
    (4, 1.0)
    """
    training = copied(model, loss_fn, optimizer)
    found = reached(training, batch)
    numbers: dict[str, float] = {
        "parameters": len(found.trainable),
        "reached": len(found.trainable) - len(found.without),
        "detached": len(found.detached),
        "unused": len(found.unused),
        "not_held": len(found.not_held),
        "foreign": found.foreign,
        "measured_over_predicted": found.follows,
    }
    parts = [f"{numbers['reached']} of {numbers['parameters']} get a gradient"]
    parts += [f"no gradient though the loss depends on it: {_listed(found.detached)}"] if found.detached else []
    parts += [f"without influence: {_listed(found.unused)}"] if found.unused else []
    parts += [f"not held by the optimiser: {_listed(found.not_held)}"] if found.not_held else []
    parts += [f"{found.foreign} that belong to no module"] if found.foreign else []
    if not math.isnan(found.follows):
        parts.append(f"the loss changes by {found.follows:.3g} of what its gradient predicts")
    return Answer("; ".join(parts), numbers)


@dataclass
class Reached:
    """Names of trainable parameters by what the loss has to do with them."""

    trainable: list[str]
    without: list[str] = field(default_factory=list)  # a gradient other than exactly 0
    detached: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    not_held: list[str] = field(default_factory=list)
    foreign: int = 0
    follows: float = math.nan


def reached(training: Training, batch: Any) -> Reached:
    """One backward, and for every parameter without a gradient one forward with it changed.

    Raises:
        NotAskedError: The loss has no gradient at all.
    """
    named = {name: p for name, p in training.module.named_parameters() if p.requires_grad}
    found = Reached(list(named))
    with same_draws():
        loss = training.loss(batch)
    if not loss.requires_grad:
        raise NotAskedError("the loss has no gradient")
    own = {id(p) for p in training.module.parameters()}
    found.foreign = sum(id(leaf) not in own for leaf in _leaves(loss))
    gradients = dict(zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True))
    found.without = [name for name, g in gradients.items() if g is None or not bool((g != 0).any())]
    before = float(loss.detach())
    for name in found.without[:_ASKED]:
        changes = loss_with_changed(training, batch, named[name]) != before
        (found.detached if changes else found.unused).append(name)
    if training.optimizer is not None:
        held = {id(p) for group in training.optimizer.param_groups for p in group["params"]}
        found.not_held = [name for name, p in named.items() if id(p) not in held]
    pairs = [(p, g) for p, g in ((named[name], g) for name, g in gradients.items()) if g is not None]
    found.follows = _follows(training, batch, pairs, before)
    return found


def loss_with_changed(training: Training, batch: Any, parameter: nn.Parameter) -> float:
    """The loss with one parameter changed at random."""
    return _with(training, batch, [(parameter, change_of(parameter))], 1.0)


def change_of(parameter: nn.Parameter) -> Tensor:
    """Of a parameter, at random, as large as it is."""
    kept = parameter.detach()
    noise = torch.randn(kept.shape, generator=torch.Generator().manual_seed(_SEED)).to(kept)
    return noise * kept.float().square().mean().sqrt().clamp(min=_LEAST).to(kept)


def _follows(training: Training, batch: Any, pairs: Sequence[tuple[nn.Parameter, Tensor]], loss: float) -> float:
    """Change of the loss along its gradient over what the gradient predicts, by central differences.

    NaN where two step sizes do not agree: the loss is not smooth at this distance, or rounds too coarsely.
    """
    square = float(torch.stack([g.double().square().sum() for _, g in pairs]).sum()) if pairs else 0.0
    if not (math.isfinite(square) and square > 0 and loss):
        return math.nan
    ratios = []
    for change in _STEPS:
        by = change * abs(loss) / square
        up, down = (_with(training, batch, pairs, sign * by) for sign in (1, -1))
        ratios.append((up - down) / (2 * by * square))
    return ratios[1] if abs(ratios[0] - ratios[1]) < 0.1 * max(1.0, *map(abs, ratios)) else math.nan


@torch.no_grad()
def _with(training: Training, batch: Any, changes: Sequence[tuple[nn.Parameter, Tensor]], factor: float) -> float:
    kept = [p.detach().clone() for p, _ in changes]
    try:
        for p, change in changes:
            p.add_(change, alpha=factor)
        with same_draws(), torch.enable_grad():
            return float(training.loss(batch).detach())
    finally:
        for (p, _), before in zip(changes, kept, strict=True):
            p.copy_(before)


def _leaves(loss: Tensor) -> Iterator[Tensor]:
    """What the loss was made of and asks for a gradient."""
    return (node.variable for node in nodes_behind(loss, most=_MOST_NODES) if hasattr(node, "variable"))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _proves(found: Experiment, finding: Finding) -> bool:
    shown = {
        "disconnected_parameters": ("detached", "unused", "not_held", "foreign"),
        "no_update": ("not_held",),
    }.get(finding.problem, ())
    return any(found.numbers.get(name, 0) > 0 for name in shown)


@tried("reach", order=1, proves=_proves)
def _in_checkup(subject: Subject) -> Experiment:
    """Of a training that cannot be copied what its own steps showed."""
    try:
        training = subject.training
    except NotAskedError as reason:
        found = _of_steps(subject.diagnosis.history, str(reason))
        return Experiment("reach", QUESTION, found.text, found.numbers, steps=found.steps)
    return reach(training, subject.batch)


def _of_steps(history: Sequence[Snapshot], reason: str) -> Answer:
    """Which trainable parameters got a gradient in any look, and which an optimiser holds."""
    records = [record for snapshot in history for record in snapshot.parameters if record.trainable]
    if not records:
        raise NotAskedError(reason)
    names = {record.name for record in records}
    with_gradient = {record.name for record in records if record.gradient > 0}
    held = {record.name for record in records if record.optimized}
    numbers: dict[str, float] = {"parameters": len(names), "reached": len(with_gradient), "not_held": len(names - held)}
    text = (
        f"{len(with_gradient)} of {len(names)} got a gradient, {len(held)} are held by an optimiser; the rest was not"
    )
    return Answer(f"{text} judged: {reason}", numbers)
