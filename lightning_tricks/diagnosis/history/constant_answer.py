"""The best answer that does not look at the input: the shares of the classes, weights included, and what it loses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_tricks.probes.records.loss_and_norm import LossRecord

# Of the entropy of all steps together, which a step has on average: less, and the steps that were looked at need not be
# like the others. Batches of two of ten classes have .3, random ones 1.
_MIXED = 0.6
_ROUNDING = 1e-4  # of a mean of thousands of 0 and 1 in single precision


@dataclass(frozen=True)
class ConstantAnswer:
    """The best constant answer of a loss over classes, or over outputs that each say yes or no."""

    counts: np.ndarray  # how often each class was wanted, or no and yes
    weights: np.ndarray  # what each weighs
    shares: np.ndarray  # the answer: the share of each class times its weight
    loss: float  # what it loses, the entropy of the shares

    @property
    def frequent(self) -> int:
        """The class that this answer names."""
        return int(self.shares.argmax())

    @property
    def imbalance(self) -> float:
        """How often that class is wanted, over the mean of the others; weights included."""
        others = (1.0 - self.shares.max()) / max(len(self.shares) - 1, 1)
        return float(self.shares.max() / others) if others > 0 else math.inf

    def loss_on(self, record: LossRecord) -> float:
        """What it loses on the targets of one step."""
        weighted = np.array(record.wanted) * self.weights
        return self.loss_among(record.wanted) * _per_element(record, weighted.sum() / sum(record.wanted))

    def loss_among(self, counts: Sequence[int]) -> float:
        """The mean of what it loses where the classes are wanted so often; infinite if one was never wanted before."""
        weighted = np.array(counts) * self.weights
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(-np.where(weighted > 0, weighted * np.log(self.shares), 0.0).sum() / weighted.sum())


def best_constant(records: Sequence[LossRecord]) -> ConstantAnswer | None:
    """That of the targets of all steps; None where they are no classes, or come sorted, or their weights are not known.

    The entropy of a sample is too low by (classes - 1) / 2n (Miller 1955), which is added.
    """
    latest, lengths = records[-1], {len(record.wanted) for record in records}
    if math.isnan(latest.smoothing) or len(lengths) > 1 or not latest.wanted:  # too many classes to be counted
        return None
    if not (_one_of_classes(latest) or _binary(records)):
        return None
    each = np.array([record.wanted for record in records], np.float64)
    counts = each.sum(0)
    weights = _weights(records, len(counts))
    if weights is None or (latest.smoothing and latest.class_weights) or np.count_nonzero(counts * weights) < 2:
        return None
    if np.average(_entropies(each), weights=each.sum(1)) < _MIXED * _entropies(counts[None])[0]:
        return None
    weighted = counts * weights
    shares = weighted / weighted.sum()
    aims = (1.0 - latest.smoothing) * shares + latest.smoothing / len(counts)
    bias = (np.count_nonzero(counts) - 1) / (2.0 * counts.sum())
    loss = min(entropy(aims) + bias, math.log(len(counts))) * _per_element(latest, weighted.sum() / counts.sum())
    return ConstantAnswer(counts, weights, shares, float(loss))


def entropy(shares: np.ndarray) -> Any:
    """-sum p ln p over the last axis.

    >>> entropy(np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])).round(4) + 0.0
    array([0.6931, 0.    ])
    """
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    return -(shares * logs).sum(-1)


def _entropies(counts: np.ndarray) -> np.ndarray:
    """Of the rows, as far as so few patterns can tell: the bias of a sample taken away."""
    sizes = counts.sum(1)
    bias = (np.count_nonzero(counts.sum(0)) - 1) / (2.0 * np.maximum(sizes, 1.0))
    found: np.ndarray = entropy(counts / np.maximum(sizes, 1.0)[:, None]) + bias
    return found


def _weights(records: Sequence[LossRecord], count: int) -> np.ndarray | None:
    """What each class weighs; a batch without a yes does not know what that weighs."""
    given = [record.class_weights for record in records if len(record.class_weights) == count]
    if not given:
        return np.ones(count) if not records[-1].class_weights else None
    known = next((each for each in reversed(given) if not any(map(math.isnan, each))), None)
    return None if known is None or min(known) < 0 else np.array(known)


def _per_element(record: LossRecord, weight: float) -> float:
    """The mean of a loss over classes divides by the weights, that of a binary one by the number of outputs."""
    return 1.0 if _one_of_classes(record) else weight


def _one_of_classes(record: LossRecord) -> bool:
    """Whether one class is right for a pattern; else each output says yes or no."""
    return record.function in ("cross_entropy", "nll_loss")


def _binary(records: Sequence[LossRecord]) -> bool:
    """Whether the targets of a binary cross-entropy are as good as 0 and 1: their mean is the share of yes."""
    return all(abs(r.target_mean - r.wanted[1] / sum(r.wanted)) < _ROUNDING for r in records)
