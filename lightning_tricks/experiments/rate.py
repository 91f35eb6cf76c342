"""rate: is the learning rate too low or too high, and what would be better?"""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from lightning_tricks.experiments.arms.kinds.rates import RATES
from lightning_tricks.experiments.arms.prepared import prepared
from lightning_tricks.experiments.arms.trial import cause_of
from lightning_tricks.experiments.asking.asks import Answer, LossFunction, asks, copied
from lightning_tricks.experiments.training import Training
from lightning_tricks.experiments.training.deadline import Deadline
from lightning_tricks.report.words import rounded


@asks("Is the learning rate too low or too high?")
def rate(
    model: nn.Module | Training,
    data: Any,
    loss_fn: LossFunction | None = None,
    optimizer: Any = None,
    *,
    max_seconds: float = 60.0,
) -> Answer:
    """Climb from the learning rate by tens, down and up, as long as a few steps go better; see ``changes``.

    Args:
        model: A LightningModule, or any module with a ``loss_fn``.
        data: Training data: a loader, a LightningDataModule, an iterable of batches, or one batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.
        optimizer: One that holds parameters of the model.
        max_seconds: When to stop; what is known then is the answer.

    Returns:
        Numbers: ``lr`` (a better one where it is proven, else the own), ``unchanged`` and ``share``, what the training
        comes to with either. Curves: shares over steps, by what was changed.
    """
    training = copied(model, loss_fn, optimizer)
    trials = prepared(training, data, False, Deadline(max_seconds))
    trials.run([], RATES, always=True)
    best = cause_of(trials.trials)
    groups = [] if training.optimizer is None else training.optimizer.param_groups
    lr = float(groups[0].get("initial_lr", groups[0]["lr"])) if groups else math.nan
    curves = {"unchanged": list(trials.base().held.values())}
    for trial in trials.trials:
        if 0 in trial.runs:
            curves[trial.arm.text] = list(trial.runs[0].held.values())
    steps = sum(run.steps for run in trials.bases.values()) + sum(trial.steps for trial in trials.trials)
    if best is None:
        numbers = {"lr": lr, "unchanged": trials.best, "share": trials.best}
        return Answer(f"no other is proven to be better than {lr:.3g}", numbers, curves, steps)
    better = lr * best.runs[0].training.lr_factor
    numbers = {"lr": better, "unchanged": best.base, "share": best.share}
    direction = "too high" if better < lr else "too low"
    text = f"{direction}: {better:.2g} comes {rounded(best.share)} of the way, {lr:.2g} {rounded(best.base)}"
    return Answer(text, numbers, curves, steps)
