"""What a metric of torchmetrics keeps of its last call."""

from __future__ import annotations

from typing import Any

from torchmetrics import Metric

from lightning_tricks._compat import lightning as _lightning


def last_value(metric: Metric) -> Any | None:
    """What the metric's last ``forward`` returned for its batch alone, as Lightning logs it; None before the first."""
    try:
        return metric._forward_cache
    except AttributeError:
        _lightning.warn_once(
            "this version of torchmetrics does not keep the value of a metric's last batch: metrics that are logged as "
            "objects are logged at the end of the epoch only; for a value per step log what the metric returns"
        )
        return None
