"""What of the gradient arrives in the step: how much of it clipping takes away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_tricks.diagnosis.history.progress import gradient_share, median, norm
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.probes import Snapshot

CLIPPED = 0.5  # share of the gradient that arrives, under which it counts
_EQUAL = 1.01  # of limits: clipping by norm leaves the norm that it is given to 1e-6


@dataclass(frozen=True)
class Clipping:
    """A gradient that is cut at every look, in a training whose steps are the larger the larger the gradient is."""

    norm: float  # of the gradient before, as a median over the looks
    share: float  # of that norm that arrives
    limit: float = math.nan  # the largest entry that arrives, where that is what limits it, not the norm

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
            return cls(norm(r for r in history[0].parameters if r.trainable), first) if first < CLIPPED else None
        norms, arrived, peaks = zip(*cuts, strict=True)
        shares, by_value = [after / before for before, after, _ in cuts], _is_one(peaks)
        if not (by_value or _is_one(arrived)) or max(shares) >= CLIPPED or len(cuts) < len(history):
            return None
        return cls(median(norms), median(shares), median(peaks) if by_value else math.nan)


@remembered
def _cut(snapshot: Snapshot) -> tuple[float, float, float] | None:
    """The norms of the gradient before and as it arrives, and the largest entry then, where it was changed between."""
    changed = [record for record in snapshot.parameters if not math.isnan(record.arrived) and record.gradient > 0]
    if not changed:
        return None
    return norm(changed), norm(changed, "arrived"), max(record.arrived_peak for record in changed)


def _is_one(numbers: Sequence[float]) -> bool:
    return max(numbers) <= _EQUAL * min(numbers)
