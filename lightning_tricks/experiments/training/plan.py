"""What a Trainer means to do: for how long it trains, and how gradients are clipped."""

from __future__ import annotations

import math
from collections.abc import Sized
from typing import Any

from lightning_tricks._compat import lightning as compat
from lightning_tricks._compat.lightning_module import trainer_of

PLANNED = 1000  # steps that a schedule is made for where nobody knows how long the fit shall be


def planned_steps(model: Any, data: Any) -> int:
    """Optimiser steps of the whole fit; ``PLANNED`` where there is no Trainer or it has no end.

    Args:
        model: A LightningModule that is or was fitted, or whose ``trainer`` will fit it; any other module.
        data: A loader that knows its length, or anything else.
    """
    real = trainer_of(model) if compat.is_lightning_module(model) else None
    if real is None:
        return PLANNED
    limits, epoch = [math.inf], _batches_in_epoch(real, data)
    max_steps, max_epochs = (getattr(real, name, None) or -1 for name in ("max_steps", "max_epochs"))
    if max_steps > 0:
        limits.append(max_steps)
    if max_epochs > 0 and math.isfinite(epoch):
        limits.append(max_epochs * math.ceil(epoch / max(1, getattr(real, "accumulate_grad_batches", 1))))
    steps = min(limits)
    return int(steps) if 0 < steps < math.inf else PLANNED


def _batches_in_epoch(real: Any, data: Any) -> float:
    """As the fit counted them, or the loader."""
    counted = float(getattr(real, "num_training_batches", math.inf))
    if 0 < counted < math.inf:
        return counted
    try:
        return float(len(data)) if isinstance(data, Sized) and not hasattr(data, "train_dataloader") else math.inf
    except (TypeError, NotImplementedError):  # a loader of an iterable data set without a length
        return math.inf


def clipping_of(real: Any) -> tuple[float, str]:
    """Limit and algorithm of a Trainer's gradient clipping; 0 for none."""
    algorithm = getattr(real.gradient_clip_algorithm, "value", real.gradient_clip_algorithm)
    return float(real.gradient_clip_val or 0.0), str(algorithm or "norm")
