"""Codes: columns with a number of their own for every class, and whether one was made of the class or of features.

A column that was written from the label, wrong here and there, knows nothing of a pattern but its class: where it is
wrong says nothing of the other features. A feature of nature that tells a class as well hangs together with others
beyond the class: where it fails they are odd too. Whether a table shows that at all its other features tell, made
into codes that fail as often.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_PERMUTED = 99
_SEED = 0
_CONTROLS = 64  # features that are made into codes


def codes_of(table: Tensor, classes: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Columns with as many different numbers as there are classes, each of which is mostly one class of its own.

    With where it is wrong.
    """
    names, own = np.unique(classes, return_inverse=True)
    found = []
    for k in _with_so_many(table, len(names)):
        numbers, code = np.unique(table[:, k].numpy(), return_inverse=True)
        counts = np.zeros((len(numbers), len(names)), int)
        np.add.at(counts, (code, own), 1)
        meant = counts.argmax(1)
        if len(set(meant.tolist())) == len(names):
            found.append((k, meant[code] != own))
    return found


def _with_so_many(table: Tensor, count: int) -> list[int]:
    first = table[: 4 * count + 16]
    few = (first.sort(0).values.diff(dim=0) != 0).sum(0) < count
    return [k for k in few.nonzero().flatten().tolist() if len(table[:, k].unique()) == count]


def is_apart(table: Tensor, column: int, wrong: np.ndarray, classes: np.ndarray) -> tuple[float, float]:
    """How much a column hangs together with the others beyond the class, and how much these do among each other.

    Returns:
        The largest correlation, within classes, of where the column is wrong with the ranks of another feature, over
        the one that 95 % of permutations within classes stay under: 1 and less for a column made of the class. The
        same for other features made into codes, the median.
    """
    names, own = np.unique(classes, return_inverse=True)
    groups = [np.flatnonzero(own == c) for c in range(len(names))]
    ranks = _ranks(table, groups)
    vary = ranks.square().sum(0) > 0
    vary[column] = False
    ranks = ranks[:, vary]
    if ranks.shape[1] < 2 or not wrong.any():
        return float("nan"), float("nan")
    many = [int(wrong[group].sum()) for group in groups]
    limit = _limit(ranks, groups, many)
    found = float(_largest(ranks, torch.from_numpy(wrong)[:, None], groups)[0]) / limit
    some = torch.linspace(0, ranks.shape[1] - 1, min(_CONTROLS, ranks.shape[1])).round().long().unique()
    made = _made(ranks[:, some], groups, many)
    besides = torch.ones(ranks.shape[1], len(some), dtype=torch.bool)
    besides[some, torch.arange(len(some))] = False  # each beside the others
    return found, float(_largest(ranks, made, groups, besides).median()) / limit


def _ranks(table: Tensor, groups: list[np.ndarray]) -> Tensor:
    """Ranks within each class, centred, there of length 1; 0 for what does not vary."""
    found = torch.zeros(table.shape, dtype=torch.float32)
    for group in groups:
        part = table[torch.from_numpy(group)]
        ranks = part.argsort(dim=0, stable=True).argsort(dim=0, stable=True).float()
        ranks = torch.where((part == part[:1]).all(0), 0.0, ranks - ranks.mean(0))
        found[torch.from_numpy(group)] = ranks / ranks.norm(dim=0).clamp(min=1e-12)
    return found


def _made(ranks: Tensor, groups: list[np.ndarray], many: list[int]) -> Tensor:
    """For every feature the patterns that are its largest of their class, so many of each."""
    found = torch.zeros(ranks.shape, dtype=torch.bool)
    for group, count in zip(groups, many, strict=True):
        order = torch.from_numpy(group)[ranks[torch.from_numpy(group)].argsort(0, descending=True)]
        found.scatter_(0, order[:count], True)
    return found


def _largest(ranks: Tensor, marked: Tensor, groups: list[np.ndarray], besides: Tensor | None = None) -> Tensor:
    """Of every column of marks its largest correlation with a feature, those within classes taken together.

    Their squares are: a threshold fails at the upper end of the one class and at the lower end of the other.
    """
    total = torch.zeros(ranks.shape[1], marked.shape[1])
    for group in map(torch.from_numpy, groups):
        own = marked[group].float()
        own -= own.mean(0)
        total += len(group) * (ranks[group].T @ (own / own.norm(dim=0).clamp(min=1e-12))).square()
    return (total if besides is None else total * besides).amax(0).sqrt()


def _limit(ranks: Tensor, groups: list[np.ndarray], many: list[int]) -> float:
    rng = np.random.default_rng(_SEED)
    marked = torch.zeros(len(ranks), _PERMUTED, dtype=torch.bool)
    for group, count in zip(groups, many, strict=True):
        for k in range(_PERMUTED):
            marked[torch.from_numpy(rng.choice(group, count, replace=False)), k] = True
    return float(_largest(ranks, marked, groups).quantile(0.95))
