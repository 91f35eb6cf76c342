"""non_finite: the first tensor, in the order of execution, with a NaN or an Inf."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import Snapshot

CHECK_DATA = Remedy(
    "check_data", "look for NaN and Inf in the data, and for log(0), x/0 and overflow before this layer"
)


@thresholds
class LIMITS:
    large_update: float = 1.0  # as large as the weights themselves: then it is the learning rate, not the data
    overflows: int = 3  # a loss scaler may overflow a few times while it looks for its scale


@rule(
    "non_finite",
    "end",
    heading="NaN or Inf",
    clause="a value became NaN or infinite",
    order=1,
    reads="whole",
    table=(10, "look at that layer, lower learning rate"),
)
def find_non_finite(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """The first tensor, in the order of execution, with NaN or Inf.

    At once and at any step: one such value spreads to every weight.
    """
    overflows = 0
    for index, snapshot in enumerate(history):
        place = _place(snapshot) if snapshot.suspicious else None
        if place is None:
            overflows = 0
            continue
        layer, tensor = place
        overflows = overflows + 1 if tensor == "gradient" and snapshot.loss_scale != 1.0 else LIMITS.overflows
        if overflows < LIMITS.overflows:
            continue
        explanation = (
            f"The {tensor}{' of this layer' if layer else ''} is NaN or Inf somewhere, and nothing executed before is. "
            "Such a value reaches every weight within one step, after which nothing can be learned."
        )
        evidence: dict[str, Any] = {"tensor": tensor, "loss": snapshot.loss}
        todo: tuple[Remedy, ...] = (CHECK_DATA, remedies.LOWER_LR, remedies.CLIP)
        why = [Criterion("tensors with NaN or Inf, at least", 1, ">", 0)]
        if index:
            evidence["last clean look at step"] = history[index - 1].step
            ratios = [r.update_ratio for r in history[index - 1].parameters if r.update_ratio >= 0]
            largest = max(ratios, default=0.0)
            if largest > LIMITS.large_update:
                evidence["largest update over weight then"] = largest
                todo = (*todo[1:], CHECK_DATA)
                why.append(Criterion("largest update over weight before", largest, ">", LIMITS.large_update))
        yield Finding(
            "non_finite", layer, "critical", snapshot.step, evidence, explanation, todo, decided_by=tuple(why)
        )
        return


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
