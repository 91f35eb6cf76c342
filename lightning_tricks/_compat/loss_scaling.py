"""The factor on the loss that torch's gradient scaler multiplies with, and who takes it out again."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["current_scale", "unscales_itself"]


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
