"""learnable: do the inputs tell anything of the targets to the simplest predictors?"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.experiments.arms.batches import Batches, concatenated
from lightning_tricks.experiments.asking.asks import Answer, asks
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.model.batches import tensors_in
from lightning_tricks.report.words import rounded

QUESTION = "Do the inputs tell anything of the targets?"
TOLD = 0.1  # of what there is to tell
ERRORS = 3.0  # standard errors, under which neighbours agree no more often than any patterns
MOST = 4000  # patterns to learn from
RIDGE = 1e-2  # of standardised inputs, times the number of patterns


@asks(QUESTION)
def learnable(data: Any) -> Answer:
    """Predict held-back targets by the nearest neighbour and by ridge regression: without a network, a few matrices.

    Supporting evidence only. That neither predicts anything says little: images that are turned, or words whose order
    counts, are learnable and look like noise to both.

    Args:
        data: Batches of an input and a target: a loader, a LightningDataModule, an iterable of batches, or one.

    Returns:
        Numbers: ``neighbour`` and ``ridge``: of class numbers how far the share of right answers comes from that of the
        most frequent class to 1, of numbers R^2.

    >>> x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    >>> found = learnable([(x[i : i + 40], (x[i : i + 40, 0] > 0).long()) for i in range(0, 400, 40)])
    >>> found.numbers["ridge"] > 0.7
    True
    """
    batches = data if isinstance(data, Batches) else Batches.of(data)
    (x, y), (x_held, y_held) = _pairs(batches.train), _pairs(batches.held)
    x, y = x[:MOST], y[:MOST]
    mean, scale = x.mean(0), x.std(0, unbiased=False)
    scale = torch.where(scale > 0, scale, 1.0)
    x, x_held = (x - mean) / scale, (x_held - mean) / scale
    classes = not y.is_floating_point()
    targets = torch.nn.functional.one_hot(y.long()).double() if classes else y.double().flatten(1 if y.dim() > 1 else 0)
    targets = targets if targets.dim() > 1 else targets[:, None]
    nearest = torch.cdist(x_held, x).argmin(1)
    centre = targets.mean(0)
    ones = RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(x.T @ x + ones, x.T @ (targets - centre))
    predicted = x_held @ weights + centre
    if classes:
        often = float((y_held == y.mode().values).double().mean())
        right = [float((guess == y_held).double().mean()) for guess in (y[nearest], predicted.argmax(1))]
        neighbour, ridge = ((each - often) / max(1 - often, 1e-9) for each in right)
    else:
        true = y_held.double().reshape(len(y_held), -1)
        spread = (true - centre).square().mean()
        neighbour, ridge = (
            float(1 - (guess - true).square().mean() / spread.clamp(min=1e-30))
            for guess in (targets[nearest], predicted)
        )
    best = max(neighbour, ridge)
    text = f"yes: {rounded(best)} of what there is to tell" if best > TOLD else "not to these two"
    return Answer(text, {"neighbour": neighbour, "ridge": ridge})


def _pairs(batches: list[Any]) -> tuple[Tensor, Tensor]:
    tensors = list(tensors_in(concatenated(batches)))
    if len(tensors) != 2 or not tensors[0].is_floating_point() or len(tensors[0]) != len(tensors[1]):
        raise NotAskedError("a batch is no pair of numbers and targets")
    x, y = tensors[0].double().flatten(1).cpu(), tensors[1].cpu()
    if not y.is_floating_point() and (y.dim() > 1 or bool((y < 0).any()) or int(y.max()) > 1000):
        raise NotAskedError("the targets are no class numbers")
    if x.shape[1] > MOST:
        raise NotAskedError(f"{x.shape[1]} features are too many for a matrix of them")
    return x, y


@tried("learnable", "trainings", order=3, wanted=lambda subject: subject.is_unexplained)
def _in_checkup(subject: Subject) -> Experiment:
    found = learnable(subject.data)
    neighbours, changes = (subject.done.get(name) for name in ("wrong_labels", "changes"))
    if changes is None or neighbours is None or not (changes.conclusive and found.conclusive):
        return found
    if max(found.numbers.values()) > TOLD or neighbours.numbers.get("errors", ERRORS) >= ERRORS:
        return found
    # No alarm: parity and the like look so too. But nothing was seen that could be called healthy.
    doubt = (
        "no change makes it learn, and the inputs' nearest neighbours say nothing of the targets: look at some pairs"
    )
    return dataclasses.replace(found, doubt=doubt)
