"""Residuals: how many targets are wrong, told from noise by which targets are far from what is predicted.

In normal scores (ranks, as quantiles of a normal distribution) the target of another pattern is normal whatever the
input says. So residuals are a mixture: of noise, whose tails may be as heavy as those of Cauchy's distribution, and of
targets that have nothing to do with the prediction. The likelihood tells the share of the latter and an interval.
Among targets that lie far off noise leaves the slope of targets over predictions at 1; of wrong targets it is 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from lightning_tricks.experiments.data.patterns.noise import INTERVAL, NOISE

_TAILS = (1.0, 2.0, 3.0, 6.0, 100.0)  # degrees of freedom of Student's distribution
_SCALES = np.geomspace(0.5, 1.5, 9)  # of the noise, over what its quartiles say
_QUARTILE = 0.6745  # of the normal distribution
_MOST_SKEW = 0.6
_MOST = 4_000  # residuals whose likelihood is computed
_SUSPICIOUS = 0.5  # probability
_FEWEST = 5


class Wrong(NamedTuple):
    """The share of wrong targets, its interval, the noise's scale, each one's probability, and the slope over
    predictions of those that are probably wrong, at the most."""

    share: float
    low: float
    high: float
    scale: float
    probability: np.ndarray
    slope: float


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Ranks as quantiles of a normal distribution; equal values have one score.

    >>> normal_scores(np.array([3.0, 1000.0, 2.0])).round(2).tolist()
    [0.0, 0.97, -0.97]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2) / len(values)
    return np.asarray(torch.special.ndtri(torch.from_numpy(ranks)).numpy()[place])


def spread(residual: np.ndarray) -> float:
    """The standard deviation that a normal distribution of these quartiles has."""
    return max(float(np.subtract(*np.quantile(residual, [0.75, 0.25]))) / 2 / _QUARTILE, 1e-3)


def wrong(scores: np.ndarray, predicted: np.ndarray) -> Wrong:
    """How many scores have nothing to do with what is predicted of them."""
    residual = scores - predicted
    low, mid, high = np.quantile(residual, [0.25, 0.5, 0.75])
    scale = spread(residual)
    skew = float(np.clip((high + low - 2 * mid) / max(high - low, 1e-9), -_MOST_SKEW, _MOST_SKEW))
    residual = residual - mid
    some = np.random.default_rng(0).permutation(len(residual))[:_MOST]
    noise = _noise(residual[some], scale, skew)
    other = np.exp(-(scores**2) / 2) / math.sqrt(2 * math.pi)
    total = np.stack([np.log((1 - s) * noise + s * other[some, None]).sum(0) for s in NOISE])
    best = int(total.max(0).argmax())
    weights = np.exp(total.max(1) - total.max()) * np.gradient(NOISE)
    likely = NOISE[total.max(1) > total.max() - INTERVAL]
    share = float((weights * NOISE).sum() / weights.sum())
    own = _noise(residual, scale, skew)[:, best]
    probability = share * other / np.maximum((1 - share) * own + share * other, 1e-300)
    found = Wrong(share, min(share, float(likely.min())), max(share, float(likely.max())), scale, probability, math.nan)
    return found._replace(slope=_slope(scores, predicted, probability > _SUSPICIOUS))


def _noise(residual: np.ndarray, scale: float, skew: float) -> np.ndarray:
    """Densities, residuals x (tails x scales): Student's, each side with a scale of its own."""
    side = np.where(residual > 0, 1 + skew, 1 - skew)
    z = (residual / side)[:, None] / (scale * _SCALES)
    found = []
    for tail in _TAILS:
        log = math.lgamma((tail + 1) / 2) - math.lgamma(tail / 2) - math.log(tail * math.pi) / 2
        found.append(np.exp(log - (tail + 1) / 2 * np.log1p(z * z / tail)) / (scale * _SCALES))
    return np.concatenate(found, 1)


def _slope(scores: np.ndarray, predicted: np.ndarray, which: np.ndarray) -> float:
    """Of scores over predictions, with two standard errors on top."""
    x, y = predicted[which] - predicted[which].mean() if which.any() else predicted[which], scores[which]
    size = float((x * x).sum())
    if len(x) < _FEWEST or size <= 0:
        return math.inf
    slope = float((x * y).sum()) / size
    rest = y - y.mean() - slope * x
    return slope + 2 * math.sqrt(float((rest * rest).sum()) / (len(x) - 2) / size)
