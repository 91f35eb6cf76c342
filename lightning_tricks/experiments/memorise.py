"""memorise: can a few patterns be learned by heart?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from lightning_tricks._compat.torch_modules import DropoutNd
from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.experiments.arms.batches import taken
from lightning_tricks.experiments.arms.training_run import seed_all
from lightning_tricks.experiments.asking.asks import Answer, LossFunction, asks, copied
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.free_outputs import free_outputs, share
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training import Training
from lightning_tricks.experiments.training.deadline import TimeIsUpError
from lightning_tricks.model.batches import number_of_samples, tensors_in
from lightning_tricks.report.words import rounded

QUESTION = "Can a few patterns be learned by heart?"
PATTERNS = 32
STEPS = 200
PATIENCE, MOVES = 50, 0.002  # steps in which a loss that stands still has not gone so much of the way
LR = 1e-3  # of Adam; then ten times as much, and a tenth
LEARNED, NOT_LEARNED = 0.8, 0.3  # of the way


@asks(QUESTION)
def memorise(
    model: nn.Module | Training, batch: Any, loss_fn: LossFunction | None = None, optimizer: Any = None
) -> Answer:
    """Train on the first patterns of one batch, again and again, with regularisation off.

    Once with the training's own optimiser, and where that comes less than .3 of the way with Adam at three learning
    rates; each until .8 of the way are reached, or the loss stands still.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``.
        batch: One batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.
        optimizer: One that holds parameters of the model.

    Returns:
        Numbers: ``own`` and ``adam``, the shares of the way from a guess to the floor of these patterns' loss (``adam``
        NaN where it was not tried), and ``reachable``, how far the network's outputs can come at all, as behind a
        softmax (1 where nothing holds them back). Curves: ``own``, the losses.

        How to read it: under .3 by its own optimiser and over .8 by Adam: the optimiser or its learning rate is at
        fault. Under .3 by both: no healthy network fails at this, so something is wrong that may not have been seen;
        it names nothing.

    >>> net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
    >>> batch = torch.randn(64, 8), torch.arange(64) % 2
    >>> adam = torch.optim.Adam(net.parameters(), 0.01)
    >>> memorise(net, batch, nn.functional.cross_entropy, adam).numbers["own"] > 0.8
    True
    """
    return _memorised(copied(model, loss_fn, optimizer), batch)


def _memorised(training: Training, batch: Any) -> Answer:
    if number_of_samples(batch) > PATTERNS and type(batch) in (tuple, list, dict):
        whole = number_of_samples(batch)
        if all(tensor.dim() and len(tensor) == whole for tensor in tensors_in(batch)):
            batch = taken(batch, torch.arange(PATTERNS))
    way = free_outputs(training.copy(), batch)
    if not way.conclusive:
        raise NotAskedError(f"how far it comes has no measure: {way.answer}")
    guess, floor = way.numbers["guess"], way.numbers["floor"]

    def reached(losses: list[float]) -> float:
        best = min((loss for loss in losses if math.isfinite(loss)), default=math.inf)
        return max(0.0, share(best, guess, floor)) if math.isfinite(best) else 0.0

    enough, moves = guess - LEARNED * (guess - floor), MOVES * (guess - floor)
    losses = _losses(_unregularised(training.copy()), batch, enough, moves)
    own, adam, steps = reached(losses), math.nan, len(losses)
    if own < NOT_LEARNED:
        by_adam = _by_adam(training, batch, enough, moves)
        adam = max((reached(each) for each in by_adam), default=math.nan)
        steps += sum(map(len, by_adam))
    most = share(way.numbers["reachable"], guess, floor)
    held = f" (behind {way.place} {rounded(most)} can be reached)" if way.place else ""
    other = "" if math.isnan(adam) else f", by Adam {rounded(adam)}"
    text = f"{'yes: ' if own >= LEARNED else ''}{rounded(own)} of the way{other}{held}"
    fails = own < NOT_LEARNED and not adam >= LEARNED
    doubt = "no fault was seen, but not even a few patterns can be learned by heart" if fails else ""
    return Answer(text, {"own": own, "adam": adam, "reachable": most}, {"own": losses}, steps, doubt=doubt)


def _by_adam(training: Training, batch: Any, enough: float, moves: float) -> list[list[float]]:
    """The losses at three learning rates, or fewer where one is enough or the time is up."""
    found: list[list[float]] = []
    for lr in (LR, 10 * LR, LR / 10):
        other = _unregularised(training.copy())
        trained = [p for p in other.module.parameters() if p.requires_grad]
        if not trained:
            break
        other.optimizer, other.schedules, other.clip = torch.optim.Adam(trained, lr), [], (0.0, "norm")
        try:
            found.append(_losses(other, batch, enough, moves))
        except TimeIsUpError:
            break
        if min(found[-1]) <= enough:
            break
    return found


def _unregularised(training: Training) -> Training:
    for module in training.module.modules():
        if isinstance(module, DropoutNd):
            module.p = 0.0
    for group in [] if training.optimizer is None else training.optimizer.param_groups:
        if "weight_decay" in group:
            group["weight_decay"] = 0.0
    return training


def _losses(training: Training, batch: Any, enough: float, moves: float) -> list[float]:
    """Until they are low enough, or stand still."""
    seed_all(0)
    found: list[float] = []
    for _ in range(STEPS):
        found.append(training.step(batch))
        if not found[-1] > enough:  # or no number
            break
        if len(found) > PATIENCE and min(found[-PATIENCE:]) > min(found[:-PATIENCE]) - moves:
            break
    return found


@tried("memorise", "trainings", order=2, wanted=lambda subject: subject.is_unexplained)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject.training.copy(), subject.batch)


_asked = asks(QUESTION, "memorise")(_memorised)
