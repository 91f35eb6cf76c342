"""Whether a training gets anywhere: its loss against its start and against that of a guess."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from lightning_tricks.probes import Snapshot

LOOKS = 3  # over which a loss is a level and no single batch
STUCK = 0.9  # loss over its start, or over that of a guess


def recent_loss(history: Sequence[Snapshot]) -> float:
    """Median over the last looks and the steps between them."""
    losses: list[float] = []
    for snapshot in reversed(history[-LOOKS:]):
        losses += [snapshot.loss, *reversed(snapshot.recent_losses)]
        if len(losses) >= 10:
            break
    known = [loss for loss in losses if not math.isnan(loss)]
    return statistics.median(known) if known else math.nan


def guess_loss(snapshot: Snapshot) -> float:
    """What a guess without looking at the input loses; NaN where the loss is not of one known call."""
    if len(snapshot.losses) != 1:
        return math.nan
    (record,) = snapshot.losses
    if not math.isnan(record.value) and not math.isclose(record.value, snapshot.loss, rel_tol=0.1):
        return math.nan  # a sum over patterns, or one of several terms
    if math.isnan(record.chance) and record.function == "mse_loss":
        return record.target_std**2
    return record.chance


def is_stuck(history: Sequence[Snapshot]) -> bool:
    """Whether the loss has come back to where it began, or to that of a guess; a loss that is no number counts."""
    if len(history) <= LOOKS:
        return False
    first, now, guess = history[0].loss, recent_loss(history), guess_loss(history[0])
    if math.isnan(first):
        return False
    return not now < STUCK * first or now >= STUCK * guess
