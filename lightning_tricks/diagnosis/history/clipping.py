"""What of the gradient arrives in the step: how much of it clipping takes away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_tricks.diagnosis.history.progress import gradient_norm, gradient_share, median
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.probes import ParameterRecord, Snapshot

CLIPPED = 0.5  # share of the gradient that arrives, under which it counts
_EQUAL = 1.01  # of limits: clipping by norm leaves the norm that it is given to 1e-6


@dataclass(frozen=True)
class Clipping:
    """A gradient that is cut at every look, in a training whose steps are the larger the larger the gradient is.

    Args:
        norm: Of the gradient before, as a median over the looks.
        share: Of that norm that arrives.
        limit: The largest entry that arrives, where that is what limits it; NaN where the norm is.
    """

    norm: float
    share: float
    limit: float = math.nan

    @property
    def arrived(self) -> float:
        """The norm that arrives in the step."""
        return self.share * self.norm

    @classmethod
    def of(cls, history: Sequence[Snapshot]) -> Clipping | None:
        """How the gradient is clipped, or None.

        The limit is the same number at every look; a gradient that is divided, or has noise added, shows none. Adam,
        whose steps are of a size of their own, does not mind.
        """
        if math.isnan(gradient_share(history[0], arrived=True)):
            return None
        cuts = [cut for cut in map(_cut, history) if cut is not None]
        if not cuts:
            first = gradient_share(history[0])
            return cls(gradient_norm(history[0]), first) if first < CLIPPED else None
        shares, norms, peaks = ([cut[i] for cut in cuts] for i in range(3))
        by_value = _is_one(peaks)
        one = by_value or _is_one([share * norm for share, norm in zip(shares, norms, strict=True)])
        if not one or max(shares) >= CLIPPED or len(cuts) < len(history):
            return None
        return cls(median(norms), median(shares), median(peaks) if by_value else math.nan)


@remembered
def _cut(snapshot: Snapshot) -> tuple[float, float, float] | None:
    """Share and norm of the gradient, and the largest entry that arrives, where it is changed before the step."""
    changed = [record for record in snapshot.parameters if not math.isnan(record.arrived) and record.gradient > 0]
    if not changed:
        return None
    before, after = (math.sqrt(sum(map(square, changed))) for square in (_before, _after))
    return after / before, before, max(record.arrived_peak for record in changed)


def _before(record: ParameterRecord) -> float:
    return record.gradient**2 * math.prod(record.shape)


def _after(record: ParameterRecord) -> float:
    return record.arrived**2 * math.prod(record.shape)


def _is_one(numbers: Sequence[float]) -> bool:
    return max(numbers) <= _EQUAL * min(numbers)
