"""Bootstrap sets: for each member as many patterns as asked for, drawn from all patterns with replacement."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset


@dataclass(frozen=True)
class Bootstrap:
    """The draws of K members.

    Attributes:
        indices: ``[K, S]``, the patterns that each member is trained on, repeated as drawn.
        num_patterns: P, how many patterns there are to draw from.
    """

    indices: Tensor
    num_patterns: int

    @property
    def num_members(self) -> int:
        return self.indices.shape[0]

    @property
    def counts(self) -> Tensor:
        """``[K, P]``: how often each pattern is in each member's set."""
        counts = torch.zeros(self.num_members, self.num_patterns, dtype=torch.long)
        return counts.scatter_add_(1, self.indices, torch.ones_like(self.indices))

    @property
    def out_of_bag(self) -> Tensor:
        """``[K, P]``: whether a member never sees a pattern."""
        return self.counts == 0

    @property
    def coverage(self) -> Tensor:
        """``[K]``: the share of all patterns in each member's set; 1 - 1/e = 63.2 % for P draws with replacement."""
        return (self.counts > 0).double().mean(1)

    def subset(self, dataset: Any, member: int) -> Subset[Any]:
        """One member's training set as an ordinary dataset."""
        return Subset(dataset, self.indices[member].tolist())


def bootstrap(
    dataset: Any, num_members: int, seed: int = 0, *, max_samples: int | float = 1.0, replace: bool = True
) -> Bootstrap:
    """Draw a training set for each member: S of the P patterns, each draw from all of them.

    A pattern is in a set of P draws with probability ``1 - (1 - 1/P)^P``, about 63.2 % (Breiman 1996, "Bagging
    predictors"). Member k's draws depend on ``seed`` and k alone, so that more members
    leave the first ones as they are.

    Args:
        dataset: Anything with a length, or the number of patterns P.
        num_members: K.
        seed: Of the draws; the global random numbers are neither read nor moved on.
        max_samples: S as a number, or as a share of P.
        replace: False: without replacement; with ``max_samples=1.0`` each member gets every pattern once.

    Raises:
        TypeError: The dataset has no length.
        ValueError: ``num_members`` is under 1, the dataset is empty, or ``max_samples`` is out of range.

    >>> sets = bootstrap(1000, num_members=8, seed=0)
    >>> sets.indices.shape, f"{sets.coverage.mean():.2f}"
    (torch.Size([8, 1000]), '0.63')
    """
    if isinstance(num_members, bool) or not isinstance(num_members, int) or num_members < 1:
        raise ValueError(f"num_members must be a whole number of at least 1, got {num_members!r}")
    patterns = _length(dataset)
    size = _size(max_samples, patterns, replace)
    rows = []
    for member_seed in seeds(seed, num_members):
        generator = torch.Generator().manual_seed(member_seed)
        if replace:
            rows.append(torch.randint(patterns, (size,), generator=generator))
        else:
            rows.append(torch.randperm(patterns, generator=generator)[:size])
    return Bootstrap(torch.stack(rows), patterns)


def seeds(seed: int, count: int) -> list[int]:
    """Seeds that have nothing in common between neighbouring ``seed``; the first ones do not depend on ``count``."""
    generator = torch.Generator().manual_seed(seed)
    return [int(torch.randint(2**62, (), generator=generator)) for _ in range(count)]


def _length(dataset: Any) -> int:
    if isinstance(dataset, int):
        length = dataset
    elif isinstance(dataset, Sized):
        try:
            length = len(dataset)
        except TypeError:
            length = -1
    else:
        length = -1
    if length < 0:
        raise TypeError(
            f"bootstrap sets need a dataset with a length, {type(dataset).__name__} has none: "
            "draws with replacement have to reach every pattern by its index"
        )
    if length == 0:
        raise ValueError("the dataset is empty: there is nothing to draw from")
    return length


def _size(max_samples: int | float, patterns: int, replace: bool) -> int:
    if isinstance(max_samples, bool) or not isinstance(max_samples, (int, float)):
        raise ValueError(f"max_samples must be a number of draws or a share of the patterns, got {max_samples!r}")
    if isinstance(max_samples, float):
        if not 0 < max_samples <= 1:
            raise ValueError(f"max_samples as a share must be over 0 and at most 1, got {max_samples}")
        return max(1, round(max_samples * patterns))
    if max_samples < 1:
        raise ValueError(f"max_samples as a number must be at least 1, got {max_samples}")
    if not replace and max_samples > patterns:
        raise ValueError(f"max_samples={max_samples} draws without replacement from {patterns} patterns")
    return max_samples
