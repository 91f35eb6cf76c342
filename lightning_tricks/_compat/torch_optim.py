"""Torch's optimisers and its gradient scaler: whose turn it is to unscale, and what they ask in every step."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer

__all__ = [
    "UNSCALING",
    "current_scale",
    "decay_is_decoupled",
    "scaler_at_work",
    "skip_graph_capture_check",
    "unscales_itself",
]

# By the name that each version of torch has; where it has none of them, the question is not put or not skipped.
_GRAPH_CAPTURE = ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")
_FRAMES = (
    24  # between a hook of an optimiser and the scaler that calls it lie those of schedulers, strategies and closures
)
UNSCALING = "_amp_foreach_non_finite_check_and_unscale_"  # what a loss scaler calls
# Those that add wd * w to the gradient, and those that multiply w by 1 - lr * wd.
_COUPLED = frozenset(["ASGD", "Adadelta", "Adagrad", "Adam", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD"])
_DECOUPLED = frozenset(["AdamW", "Adafactor", "Muon", "Lion"])


def decay_is_decoupled(optimizer: Any, group: Mapping[str, Any]) -> bool | None:
    """Whether a group's weights are shrunk beside the gradient's step, not by way of the gradient; None: not known."""
    names = [kind.__name__ for kind in type(optimizer).__mro__]
    name = next((name for name in names if name in _COUPLED | _DECOUPLED), None)
    return None if name is None else name in _DECOUPLED or bool(group.get("decoupled_weight_decay"))


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


def scaler_at_work() -> Any:
    """The gradient scaler whose ``step`` makes an optimiser's step right now; None: nobody's does.

    A scaler leaves no word of itself with the optimiser: what tells is who calls.
    """
    frame = sys._getframe()
    for _ in range(_FRAMES):
        back = frame.f_back
        if back is None:
            return None
        frame = back
        if frame.f_code.co_name == "step":
            caller = frame.f_locals.get("self")
            if isinstance(caller, torch.amp.GradScaler):
                return caller if caller.is_enabled() else None
    return None
