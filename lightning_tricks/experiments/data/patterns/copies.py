"""Copies: which patterns are equal, which nearly so, and which only meet because there are few different ones."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lightning_tricks.experiments.data.patterns.features import table_of
from lightning_tricks.experiments.data.patterns.neighbours import Neighbours
from lightning_tricks.experiments.data.patterns.reading import Patterns

_GROUPS = 32  # of columns that are left out in turn
_SHARE_OF_WINDOW = 2  # one over it: what two windows of a series have to share
_LOOKED_AT = 1000  # patterns: windows of a series follow each other
_EQUAL = 0.2  # of the distances: they are not those of numbers that vary freely
_NEAR = 0.2  # of the median distance
_FEWEST = 100  # patterns that are counted on: a set of few has gaps by nature
_DIFFERENT = 4  # numbers in that: less is padding, or a symbol that repeats


def keys_of(patterns: Patterns) -> np.ndarray:
    """A number for every pattern, the same for the same input."""
    with np.errstate(over="ignore"):
        total = np.zeros(len(patterns), np.int64)
        for column in patterns.inputs:
            total = total * np.int64(6364136223846793005) + column.keys
    return total


def nearly_met(asked: Patterns, base: Patterns) -> np.ndarray:
    """For each pattern whether another one agrees with it in all but one of its columns, or one group of these.

    Inputs of few different columns meet by chance, and then near misses are more frequent still. A copy of a pattern
    that has no such neighbour was made. Patterns that are constant count as met: nothing is in them.
    """
    one, other = table_of(asked)[0], table_of(base)[0]
    if one.shape[1] != other.shape[1] or one.shape[1] < 2:
        return np.ones(len(asked), bool)
    of_asked, of_base = _group_keys(one), _group_keys(other)
    whole = of_asked.sum(1)
    distinct = np.unique(np.concatenate([of_base.sum(1)[:, None], of_base], 1), axis=0)
    met = (one == one[:, :1]).all(1).numpy()
    known = np.isin(whole, distinct[:, 0])
    for group in range(of_asked.shape[1]):
        left, counts = np.unique(distinct[:, 0] - distinct[:, 1 + group], return_counts=True)
        wanted = whole - of_asked[:, group]
        place = np.searchsorted(left, wanted).clip(max=len(left) - 1)
        found = np.where(left[place] == wanted, counts[place], 0)
        met |= found > known
    return met


def _group_keys(table: Tensor) -> np.ndarray:
    """Of every pattern a hash for each group of columns; their sum is that of the pattern."""
    count = min(_GROUPS, table.shape[1])
    rng = np.random.default_rng(0)
    found = []
    with np.errstate(over="ignore"):
        for part in torch.tensor_split(table + 0.0, count, 1):
            bits = part.contiguous().numpy().view(np.int32).astype(np.int64)
            factors = rng.integers(-(2**62), 2**62, bits.shape[1]) * 2 + 1
            found.append((_mixed(bits + rng.integers(2**62, size=bits.shape[1])) * factors).sum(1))
    return np.stack(found, 1)


def _mixed(x: np.ndarray) -> np.ndarray:
    """Every bit hangs on every other: numbers that differ in a high bit only would give sums that meet."""
    for factor in (-4658895280553007687, -7723592293110705685):
        x = (x ^ (x >> 30)) * np.int64(factor)
    return x ^ (x >> 31)


def far_nearer(found: Neighbours) -> np.ndarray:
    """For each pattern that was asked whether its nearest are so much nearer than the next ones that no chance does it.

    In m dimensions the k-th nearest distance over the next, to the power k m, is uniform on [0, 1]; m by the median of
    the first two (Facco et al. 2017, eq. 3). Patterns under 1 / n^2 anywhere are copies with something added, if they
    are also near beside the others. Where distances are often equal, as of ones and zeros, nothing is told.
    """
    distance = np.maximum(found.distance, 1e-12)
    if distance.shape[1] < 3:
        return np.zeros(len(distance), bool)
    ratios = np.log(distance[:, :-1] / distance[:, 1:])
    plain = ratios[found.distance[:, 0] > 0, 0]
    if len(plain) < 10 or float((plain == 0).mean()) > _EQUAL:
        return np.zeros(len(distance), bool)
    dimension = math.log(2) / max(-float(np.median(plain)), 1e-6)
    ranks = np.arange(1, distance.shape[1])
    surprise = (ratios * ranks).min(1) * dimension
    near = distance[:, 0] < _NEAR * np.median(distance[:, 0])
    return np.asarray(near & (surprise < -2 * math.log(max(len(distance), _FEWEST))))


def shared_windows(asked: Patterns, base: Patterns) -> np.ndarray:
    """For each pattern whether half of it lies, shifted, in another one: windows of one series that overlap.

    Short sequences of few symbols meet by chance, at the same place as often as at any other: those are taken off.
    """
    found = np.zeros(len(asked), bool)
    for one, other in zip(asked.inputs, base.inputs, strict=False):
        if one.kind == "image" or one.shape != other.shape or not one.whole or not one.shape or len(one.shape) > 2:
            continue
        for axis, length in enumerate(one.shape):
            if length >= 2 * _DIFFERENT:
                found |= _shifted(*(_in_time(x.values, axis) for x in (one, other)))
    return found


def are_windows(patterns: Patterns) -> bool:
    """Whether most patterns share half of themselves with another one: windows of a series."""
    first = patterns.some(np.arange(min(len(patterns), _LOOKED_AT)))
    odd = np.arange(len(first)) % 2 == 1
    return bool(odd.any()) and float(shared_windows(first.some(odd), first.some(~odd)).mean()) > 0.5


def _in_time(values: Tensor, axis: int) -> Tensor:
    """Patterns x positions x numbers."""
    x = values.float()
    return x[:, :, None] if x.dim() == 2 else x.movedim(1 + axis, 1)


def _shifted(one: Tensor, other: Tensor) -> np.ndarray:
    length = -(-one.shape[1] // _SHARE_OF_WINDOW)
    blocks, lively = _blocks(one, length)
    others, of_others = _blocks(other, length)
    count = blocks.shape[1]
    keys = np.unique(others[of_others])
    anywhere = (np.isin(blocks, keys) & lively).any(1)
    same = np.zeros(len(one), bool)
    for k in range(count) if anywhere.any() else ():
        same |= np.isin(blocks[:, k], others[of_others[:, k], k]) & lively[:, k]
    shifted = anywhere & ~same
    return shifted if shifted.sum() > (count - 1) * same.sum() else np.zeros(len(one), bool)


def _blocks(x: Tensor, length: int) -> tuple[np.ndarray, np.ndarray]:
    """A hash of every run of so many positions, and whether different numbers are in it."""
    bits = (x + 0.0).contiguous().numpy().view(np.int32).astype(np.int64)
    rng = np.random.default_rng(0)
    with np.errstate(over="ignore"):
        each = (_mixed(bits) * (rng.integers(2**62, size=bits.shape[2]) * 2 + 1)).sum(2)
        factor, total = np.int64(6364136223846793005), each[:, : each.shape[1] - length + 1] * 0
        for k in range(length):
            total = total * factor + each[:, k : each.shape[1] - length + 1 + k]
    changes = np.concatenate([np.zeros((len(each), 1), int), np.cumsum(each[:, 1:] != each[:, :-1], 1)], 1)
    lively = changes[:, length - 1 :] - changes[:, : each.shape[1] - length + 1] >= _DIFFERENT
    return total, lively
