"""Noise: how many labels are wrong, told from classes that overlap by how many of a neighbourhood differ.

Where classes lie apart, every neighbourhood speaks with one voice, and each label in it is wrong with the same
probability: the number of labels that differ from the majority is binomial. Where classes overlap that probability goes
from the noise up to a half. So the counts of all neighbourhoods are a mixture: of one binomial at the noise, and of
binomials above it, whose density falls as a power of the overlap. The likelihood of the counts tells the noise,
and an interval around it; what smooth overlap there is lies in the second part, however much it is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_OVERLAPS = 80  # points of the density
_POWERS = (0.0, 0.5, 0.9, 1.3)  # at which it falls
_SHARES = np.linspace(0, 1, 51)  # of neighbourhoods without overlap
NOISE = np.concatenate([np.arange(0, 0.06, 0.0025), np.arange(0.06, 0.4, 0.01)])
INTERVAL = 1.92  # of the log likelihood: 95 %


class Noise(NamedTuple):
    """The share of wrong labels, its interval, and the largest likely share of neighbourhoods without overlap."""

    share: float
    low: float
    high: float
    apart: float


def estimate(counts: Sequence[tuple[np.ndarray, np.ndarray]], size: int, classes: int) -> Noise:
    """The share of labels that differ from what their neighbourhoods say without overlap, and its 95 % interval.

    The same share for all classes, unless the counts are much likelier with one for each.

    Args:
        counts: Of several ways to find neighbours, how many of each neighbourhood differ from its majority, and of
            which class this is.
        size: How many labels a neighbourhood has.
        classes: How many classes there are.
    """
    logs = _mixtures(size, classes)
    groups = np.zeros((classes, len(NOISE), len(_SHARES)))
    together, weights = np.zeros((len(NOISE), len(_SHARES))), np.zeros(classes)
    for differ, majority in counts:
        table = np.zeros((classes, logs.shape[-1]))
        np.add.at(table, (majority, np.minimum(differ, logs.shape[-1] - 1)), 1.0)
        # A label lies in as many neighbourhoods as one has labels, and the ways have the same labels. That counted by
        # itself gives intervals twice as wide as the error is: neighbourhoods that share labels share few of them.
        table *= 2 / size / len(counts)
        for c in np.flatnonzero(table.sum(1)):
            groups[c] += (logs @ table[c]).max(1)
        together += (logs @ table.sum(0)).max(1)
        weights += table.sum(1)
    by_class = groups.max(2)
    gain = float(by_class.max(1).sum() - by_class.sum(0).max())
    whole = _read_off(together)
    if gain <= INTERVAL * (classes - 1):
        return whole
    each, weights = [_read_off(group) for group in groups], weights / weights.sum()
    share = float(sum(w * one.share for w, one in zip(weights, each, strict=True)))
    down, up = (
        math.sqrt(sum((w * (getattr(one, end) - one.share)) ** 2 for w, one in zip(weights, each, strict=True)))
        for end in ("low", "high")
    )
    return Noise(share, max(share - down, 0.0), share + up, whole.apart)


def _read_off(total: np.ndarray) -> Noise:
    """Of log likelihoods, noise x share: the mean of the noise, where their maximum jumps with a few labels."""
    best, by_noise = total.max(), total.max(1)
    weights = np.exp(by_noise - best) * np.gradient(NOISE)
    likely, apart = NOISE[by_noise > best - INTERVAL], _SHARES[total.max(0) > best - INTERVAL]
    share = float((weights * NOISE).sum() / weights.sum())
    return Noise(share, min(share, float(likely.min())), max(share, float(likely.max())), float(apart.max()))


@functools.lru_cache(maxsize=8)
def _mixtures(size: int, classes: int) -> np.ndarray:
    """Logarithms of the probabilities of every count: noise x power x share x count."""
    most = 0.5 if classes == 2 else 1 - 1 / min(classes, 10)
    overlap = (np.arange(_OVERLAPS) + 0.5) / _OVERLAPS * most
    density = np.stack([overlap**-power / (overlap**-power).sum() for power in _POWERS])
    apart = _binomial(NOISE, size, classes)
    mixed = density @ _binomial(NOISE[:, None] + overlap * (1 - NOISE[:, None] / most), size, classes)
    whole = _SHARES[:, None] * apart[:, None, None] + (1 - _SHARES[:, None]) * mixed[:, :, None]
    return np.asarray(np.log(np.maximum(whole, 1e-300)))


def _binomial(chance: np.ndarray, size: int, classes: int) -> np.ndarray:
    """Probabilities of counts; of two classes the fewer are those that differ."""
    many = np.arange(size + 1)
    ways = np.array([math.comb(size, k) for k in many], float)
    found = ways * chance[..., None] ** many * (1 - chance[..., None]) ** (size - many)
    if classes > 2:
        return np.asarray(found)
    folded = np.zeros((*found.shape[:-1], size // 2 + 1))
    for k in many:
        folded[..., min(k, size - k)] += found[..., k]
    return folded
