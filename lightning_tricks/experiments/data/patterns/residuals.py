"""Residuals: how many targets are wrong, told from noise by which targets are far from what is predicted.

In normal scores (ranks, as quantiles of a normal distribution) the target of another pattern is normal whatever the
input says. So residuals are a mixture: of noise, whose tails may be heavy, and of
targets that have nothing to do with the prediction. The likelihood tells the share of the latter and an interval.
Noise throws targets to both sides, wrong targets lie toward the centre: wherever the prediction is, most others are
there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from lightning_tricks.experiments.data.patterns.neighbours import Neighbours
from lightning_tricks.experiments.data.patterns.noise import INTERVAL, NOISE

_TAILS = (1.5, 2.0, 3.0, 6.0, 100.0)  # degrees of freedom of Student's distribution
_SCALES = np.geomspace(0.5, 1.5, 9)  # of the noise, over what its quartiles say
# Noise is hardly ever of the kind that is fitted: of 80 intervals of the likelihood alone 62 held what was planted (in
# 5 sets, 8 seeds, 5 and 20 %), of such that are so much wider 76.
_WIDER = 1.75
_QUARTILE = 0.6745  # of the normal distribution
_MOST_SKEW = 0.6
_LOCAL = (0.1, 10.0)  # of the noise, at a place
_MOST = 4_000  # residuals whose likelihood is computed
_FAR = (3.0, 5.0)  # spreads: of two tries that which shows more
_OFF_CENTRE = 0.25  # of a prediction, as a score: in the centre no side is toward it


class Wrong(NamedTuple):
    """The share of wrong targets, its interval, the noise's scale, each one's probability, of targets that lie far off
    the share that lies toward the centre, at the least, and the share's lower end by the likelihood alone."""

    share: float
    low: float
    high: float
    scale: float
    probability: np.ndarray
    toward: float
    least: float


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Ranks as quantiles of a normal distribution; equal values have one score.

    >>> normal_scores(np.array([3.0, 1000.0, 2.0])).round(2).tolist()
    [0.0, 0.97, -0.97]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2) / len(values)
    return np.asarray(torch.special.ndtri(torch.from_numpy(ranks)).numpy()[place])


def robust_std(residual: np.ndarray) -> float:
    """The standard deviation that a normal distribution of these quartiles has."""
    return max(float(np.subtract(*np.quantile(residual, [0.75, 0.25]))) / 2 / _QUARTILE, 1e-9)


def wrong(values: np.ndarray, predicted: np.ndarray, near: Neighbours) -> Wrong:
    """How many values have nothing to do with what is predicted of their scores; noise may differ by place."""
    scores = normal_scores(values)
    local = _local(scores - predicted, near)
    residual = (scores - predicted) / local
    low, mid, high = np.quantile(residual, [0.25, 0.5, 0.75])
    scale = robust_std(residual)
    skew = float(np.clip((high + low - 2 * mid) / max(high - low, 1e-9), -_MOST_SKEW, _MOST_SKEW))
    residual = residual - mid
    some = np.random.default_rng(0).permutation(len(residual))[:_MOST]
    noise = _noise(residual[some], scale, skew) / local[some, None]
    other = np.exp(-(scores**2) / 2) / math.sqrt(2 * math.pi)
    total = np.stack([np.log((1 - s) * noise + s * other[some, None]).sum(0) for s in NOISE])
    best = int(total.max(0).argmax())
    weights = np.exp(total.max(1) - total.max()) * np.gradient(NOISE)
    likely = NOISE[total.max(1) > total.max() - INTERVAL]
    share = float((weights * NOISE).sum() / weights.sum())
    own = _noise(residual, scale, skew)[:, best] / local
    probability = share * other / np.maximum((1 - share) * own + share * other, 1e-300)
    least, most = min(share, float(likely.min())), max(share, float(likely.max()))
    interval = max(share - _WIDER * (share - least), 0.0), min(share + _WIDER * (most - share), 1.0)
    return Wrong(share, *interval, scale, probability, _toward(values, predicted), least)


def _local(residual: np.ndarray, near: Neighbours) -> np.ndarray:
    """How much larger residuals are at a place than elsewhere, by its neighbours; halfway, as these are few."""
    found, size = np.ones(len(residual)), np.abs(residual)
    found[near.asked] = np.median(size[near.index], 1) / max(float(np.median(size)), 1e-9)
    return np.asarray(np.sqrt(np.clip(found, *_LOCAL)))


def _noise(residual: np.ndarray, scale: float, skew: float) -> np.ndarray:
    """Densities, residuals x (tails x scales): Student's, each side with a scale of its own."""
    side = np.where(residual > 0, 1 + skew, 1 - skew)
    z = (residual / side)[:, None] / (scale * _SCALES)
    found = []
    for tail in _TAILS:
        log = math.lgamma((tail + 1) / 2) - math.lgamma(tail / 2) - math.log(tail * math.pi) / 2
        found.append(np.exp(log - (tail + 1) / 2 * np.log1p(z * z / tail)) / (scale * _SCALES))
    return np.concatenate(found, 1)


def _toward(values: np.ndarray, predicted: np.ndarray) -> float:
    """Of values that lie far off, the share that lies toward the median, less two standard errors.

    Noise that is skewed lies toward it on one side and away on the other: both sides count alike.
    """
    said = np.quantile(values, torch.special.ndtr(torch.from_numpy(predicted)).numpy())
    residual = values - said
    size = np.abs(residual - np.median(residual)) / robust_std(residual)
    sides = predicted > _OFF_CENTRE, predicted < -_OFF_CENTRE
    found = []
    for far in _FAR:
        given = [residual[side & (size > far)] * (1 if k else -1) > 0 for k, side in enumerate(sides)]
        count, toward = (np.array([function(each) for each in given], float) for function in (len, np.sum))
        share = (toward + 1) / (count + 2)
        error = math.sqrt(float((share * (1 - share) / (count + 3)).sum())) / 2
        found.append(float(share.mean()) - 2 * error)
    return max(found)
