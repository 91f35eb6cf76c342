"""Out-of-bag evaluation: each pattern is predicted by the members that never saw it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_tricks.ensemble.data.bootstrap import Bootstrap
from lightning_tricks.ensemble.data.loader import tensors_of
from lightning_tricks.ensemble.evaluation.decomposition import as_values
from lightning_tricks.ensemble.evaluation.prediction import Task, predict_by
from lightning_tricks.model.isolated import keep_training_flags


@dataclass(frozen=True)
class OutOfBag:
    """How an ensemble does on its own training patterns, without the members that saw them (Breiman 1996).

    Attributes:
        score: Accuracy, or R^2 = 1 - squared error / variance of the targets.
        loss: Negative log-likelihood, or squared error, per pattern (and output).
        coverage: Share of the patterns that some member never saw; the others do not count.
        prediction: ``[P, ...]``: mean of those members; NaN where there is none.
        decomposition: Error and ambiguity, of members on the patterns that each one never saw.
    """

    score: float
    loss: float
    coverage: float
    prediction: Tensor
    decomposition: OutOfBagDecomposition


@dataclass(frozen=True)
class OutOfBagDecomposition:
    """Squared error = mean member error - ambiguity, where each pattern has its own set of members.

    Attributes:
        ensemble_error: Of the out-of-bag mean, per pattern.
        mean_member_error: Mean over patterns of the mean over a pattern's members.
        ambiguity: Mean over patterns of the members' mean squared distance from their mean.
        member_errors: ``[K]``: of each member on the patterns that it never saw.
    """

    ensemble_error: float
    mean_member_error: float
    ambiguity: float
    member_errors: Tensor


def out_of_bag(ensemble: Any, dataset: Any, sets: Bootstrap, batch_size: int = 1024) -> OutOfBag:
    """Predict every pattern by the members that never saw it.

    A pattern that stands twice in the data set counts as two patterns: let such a data set be cleaned first, or the
    score is too good.

    Warns:
        UserWarning: Some patterns are in every member's set, and have no prediction.

    Raises:
        ValueError: No pattern is out of the bag of any member.
    """
    unseen = sets.out_of_bag
    if not bool(unseen.any()):
        raise ValueError(
            "no pattern is out of bag: every member saw every pattern; draw with replacement (bootstrap=True) or "
            "take max_samples under 1.0"
        )
    device, networks = ensemble.device, list(ensemble.networks)
    mean_predictions, targets, parts = [], [], []
    with torch.no_grad(), keep_training_flags(ensemble):
        ensemble.networks.eval()
        start = 0
        for x, y in patterns_of(dataset, batch_size, device):
            members = torch.stack([predict_by(network, x, ensemble.task) for network in networks])
            mask = unseen[:, start : start + len(y)].to(device)
            start += len(y)
            weights = mask.to(members.dtype).view(*mask.shape, *[1] * (members.dim() - 2))
            count = weights.sum(0)
            mean = (members * weights).sum(0) / count  # NaN where no member is left
            truth = as_values(members, y).to(members.dtype)
            squares = ((members - truth).square() * weights).flatten(2).sum(2)
            ambiguity = (((members - mean).square() * weights).nan_to_num().flatten(2).sum(2)).sum(0) / mask.sum(0)
            parts.append((squares, mask, ambiguity, (mean - truth).square().flatten(1).sum(1)))
            mean_predictions.append(mean)
            targets.append(y)
    squares, mask, ambiguity, errors = (torch.cat(item, dim=-1) for item in zip(*parts, strict=True))
    covered = mask.any(0)
    missing, total = int((~covered).sum()), len(covered)
    if missing:
        warnings.warn(
            f"{missing} of {total} patterns are in the sets of all {len(networks)} members and have no out-of-bag "
            f"prediction: the score is that of the others (coverage {1 - missing / total:.3g}); take more members or a "
            "smaller max_samples",
            stacklevel=3,
        )
    mean, target = torch.cat(mean_predictions), torch.cat(targets)
    return OutOfBag(
        score=score(mean[covered], target[covered], ensemble.task),
        loss=loss(mean[covered], target[covered], ensemble.task),
        coverage=float(covered.double().mean()),
        prediction=mean,
        decomposition=OutOfBagDecomposition(
            ensemble_error=float(errors[covered].double().mean()),
            mean_member_error=float((squares.double().sum(0) / mask.sum(0))[covered].mean()),
            ambiguity=float(ambiguity[covered].double().mean()),
            member_errors=squares.double().sum(1) / mask.sum(1),
        ),
    )


def member_losses(ensemble: Any, active: list[int], dataset: Any, sets: Bootstrap) -> dict[int, float]:
    """Each member's mean loss on the patterns that it never saw."""
    unseen = sets.out_of_bag
    empty = [number for number in active if not bool(unseen[number].any())]
    if empty:
        raise ValueError(f"member {empty[0]} saw every pattern: it has no out-of-bag loss to be stopped by")
    sums = dict.fromkeys(active, 0.0)
    with torch.no_grad(), keep_training_flags(ensemble):
        ensemble.networks.eval()
        start = 0
        for x, y in patterns_of(dataset, 1024, ensemble.device):
            for number in active:
                rows = unseen[number, start : start + len(y)].to(y.device)
                if bool(rows.any()):
                    mean = predict_by(ensemble.networks[number], x[rows], ensemble.task)
                    sums[number] += loss(mean, y[rows], ensemble.task) * int(rows.sum())
            start += len(y)
    return {number: total / int(unseen[number].sum()) for number, total in sums.items()}


def patterns_of(dataset: Any, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """All patterns in order: the first two entries of the dataset's tuples."""
    tensors = tensors_of(dataset)
    batches: Any
    if tensors is not None:
        batches = zip(*(tensor.split(batch_size) for tensor in tensors), strict=True)
    else:
        batches = DataLoader(dataset, batch_size=batch_size)
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise TypeError(f"out-of-bag evaluation needs patterns (x, y), got a {type(batch).__name__}")
        yield batch[0].to(device), batch[1].to(device)


def loss(mean: Tensor, target: Tensor, task: Task) -> float:
    """Mean negative log-likelihood of classes, or mean squared error."""
    if task == "regression":
        return float((mean.double() - target.reshape(mean.shape).double()).square().mean())
    tiny = torch.finfo(mean.dtype).tiny
    return float(F.nll_loss(mean.clamp_min(tiny).log().double(), target.long().reshape(-1)))


def score(mean: Tensor, target: Tensor, task: Task) -> float:
    """Accuracy, or R^2 over all outputs."""
    if task == "classification":
        return float((mean.argmax(-1) == target.reshape(-1)).double().mean())
    truth = target.reshape(mean.shape).double()
    return 1.0 - float((mean.double() - truth).square().sum() / (truth - truth.mean(0)).square().sum())
