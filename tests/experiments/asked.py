"""Any experiment, asked by its name."""

from __future__ import annotations

from typing import Any

import lightning_tricks as lt

OF_DATA = ("same_sample_twice", "batch_order", "learnable", *lt.experiments.data.__all__)  # without a network


def ask(name: str, model: Any, data: Any, loss_fn: Any) -> lt.Experiment:
    """With the first batch of the data, or with the data where it asks for those."""
    function = getattr(lt.experiments, name)
    if name in OF_DATA:
        found = function(data)
    elif name in ("changes", "rate"):
        found = function(model, data, loss_fn)
    elif name == "validation_like_training":
        found = function(model, data, loss_fn, val_data=data)
    else:
        # Not by the loader's own stream: it is to stay where it is.
        found = function(model, next(iter(data)) if isinstance(data, list) else data.dataset[:8], loss_fn)
    assert isinstance(found, lt.Experiment)
    return found
