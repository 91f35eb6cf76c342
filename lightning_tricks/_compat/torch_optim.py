"""Torch's optimisers and its gradient scaler: whose turn it is to unscale, and what they ask in every step."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

__all__ = ["current_scale", "skip_graph_capture_check", "unscales_itself"]

# By the name that each version of torch has; where it has none of them, the question is not put or not skipped.
_GRAPH_CAPTURE = ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")


def skip_graph_capture_check(optimizer: Optimizer) -> None:
    """Leave out the question whether a GPU captures its graph, for an optimiser whose parameters are on the CPU.

    It costs as much as a small backward pass.
    """
    for question in _GRAPH_CAPTURE:
        if hasattr(optimizer, question):
            setattr(optimizer, question, _nothing)


def _nothing() -> None:
    pass


def current_scale(scaler: Any) -> float | torch.Tensor:
    """The loss scale, as a tensor on the device where there is one: asking by the public name waits for the device."""
    scale = getattr(scaler, "_scale", None)  # made at the first backward pass
    return scale.detach().clone() if isinstance(scale, torch.Tensor) else float(scaler.get_scale())


def unscales_itself(optimizer: Any) -> bool:
    """Whether gradients are still scaled right before this optimiser's step, because it unscales them itself.

    Without torch's own mark for it: whether the optimiser is one of torch's fused ones, which are those that do.
    """
    fused = bool(getattr(optimizer, "defaults", {}).get("fused"))
    return bool(getattr(optimizer, "_step_supports_amp_scaling", fused))
