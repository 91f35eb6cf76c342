"""non_finite: the first tensor, in the order of execution, with a NaN or an Inf."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.probes import Snapshot

LEAP = 1.0  # an update as large as the weights themselves: then it is the learning rate, not the data
_SCALER_PATIENCE = 3  # a loss scaler may overflow a few times while it looks for its scale


def find_non_finite(history: Sequence[Snapshot]) -> list[Finding]:
    """At once and at any step: one such value spreads to every weight."""
    overflows = 0
    for snapshot in history:
        place = _place(snapshot) if snapshot.suspicious else None
        if place is None:
            overflows = 0
            continue
        layer, tensor = place
        overflows = overflows + 1 if tensor == "gradient" and snapshot.loss_scale != 1.0 else _SCALER_PATIENCE
        if overflows < _SCALER_PATIENCE:
            continue
        explanation = (
            f"The {tensor}{' of this layer' if layer else ''} is NaN or Inf somewhere, and nothing executed before is. "
            "Such a value reaches every weight within one step, after which nothing can be learned."
        )
        before = [clean for clean in history if clean.step < snapshot.step]
        evidence: dict[str, Any] = {"tensor": tensor, "loss": snapshot.loss}
        todo = [remedies.CHECK_DATA, remedies.LOWER_LR, remedies.CLIP]
        if before:
            evidence["last clean look at step"] = before[-1].step
            leap = max((r.update_ratio for r in before[-1].parameters if r.update_ratio >= 0), default=0.0)
            if leap > LEAP:
                evidence["largest update over weight then"] = leap
                todo.append(todo.pop(0))
        return [Finding("non_finite", layer, "critical", snapshot.step, evidence, explanation, tuple(todo))]
    return []


def _place(snapshot: Snapshot) -> tuple[str | None, str] | None:
    broken = {record.layer for record in snapshot.parameters if record.nonfinite and record.layer}
    for record in snapshot.weighted:
        if record.nonfinite_input:
            upstream = [r for r in snapshot.activations if r.order < record.order and r.nonfinite]
            return (upstream[0].name, "output") if upstream else (record.name, "input")
        if record.nonfinite:
            return record.name, "weight" if record.name in broken else "output"
        following = [r for r in snapshot.activations if r.order > record.order and r.nonfinite]
        later = [r.order for r in snapshot.weighted if r.order > record.order]
        if following and (not later or following[0].order < later[0]):
            return following[0].name, "output"
    first = next((record for record in snapshot.activations if record.nonfinite), None)
    if first is not None:
        return first.name, "output"
    if snapshot.nonfinite_loss:
        return None, "loss"
    backward = [r for r in snapshot.weighted if math.isinf(r.error_signal) or _poisoned(r.signal)]
    if backward:
        return backward[-1].name, "gradient"
    gradient = next((r for r in reversed(snapshot.parameters) if r.nonfinite_gradient), None)
    return None if gradient is None else (gradient.layer or gradient.name, "gradient")


def _poisoned(signal: Any) -> bool:
    return signal is not None and not math.isfinite(float(signal.square))
