"""non_finite: the first tensor, in the order of execution, with a NaN or an Inf."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy
from lightning_tricks.diagnosis.history.persistence import Persistence
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import ActivationRecord, Snapshot, WeightedRecord

# Where to look, by the tensor that is the first.
CHECK: Mapping[str, str] = {
    "data": "look for NaN and Inf in the data: a division by a standard deviation of 0, missing values",
    "input": "look between the layer before and {layer}: log(0), x/0, sqrt or exp that overflows",
    "weight": "look at the step before: the weights of {layer} were finite until then",
    "output": "look at {layer}: its input is finite, so the values in it or its weights overflow",
    "loss": "look at how the loss is computed: log(0), x/0, exp that overflows; all layers are finite",
    "gradient": "look behind {layer}, at what follows it up to the loss, going backward: sqrt, norm or a power at 0, "
    "x/0 or log(0) in a branch that torch.where does not take; forward all is finite",
}


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
    needs="layers",
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
        before_it = "that a backward pass meets before" if tensor == "gradient" else "executed before"
        explanation = (
            f"The {tensor}{' of this layer' if layer else ''} is NaN or Inf somewhere, and nothing {before_it} is. "
            "Such a value reaches every weight within one step, after which nothing can be learned."
        )
        evidence: dict[str, Any] = {"tensor": tensor, "loss": snapshot.loss, **snapshot.origin}
        todo, why = [_check(snapshot, layer, tensor)], [Criterion("tensors with NaN or Inf, at least", 1, ">", 0)]
        if snapshot.step:  # before the first step no step can have brought it about
            todo += [remedies.LOWER_LR, remedies.CLIP]
        if index:
            before = history[index - 1]
            evidence["last clean look at step"] = before.step
            largest = max((r.update_ratio for r in before.parameters if r.update_ratio >= 0), default=0.0)
            if largest > LIMITS.large_update:
                evidence["largest update over weight then"] = largest
                todo = [*todo[1:], todo[0]]
                why.append(Criterion("largest update over weight before", largest, ">", LIMITS.large_update))
        found = Persistence(snapshot.step, 1, snapshot)
        yield found.finding("non_finite", layer, "critical", evidence, explanation, todo, why)
        return


def _check(snapshot: Snapshot, layer: str | None, tensor: str) -> Remedy:
    if snapshot.origin:
        text = "look at {line}: {operation} is the first that is NaN or Inf although what comes in is not"
        return Remedy("check_values", text.format(**snapshot.origin), layer)
    first = next((record.name for record in snapshot.weighted), None)
    where = "data" if tensor == "input" and layer == first else tensor
    if tensor == "output" and all(record.name != layer for record in snapshot.weighted):
        where = "input"  # of an activation it is not known
    return Remedy("check_data" if where == "data" else "check_values", CHECK[where].format(layer=layer), layer)


def _place(snapshot: Snapshot) -> tuple[str | None, str] | None:
    broken = {record.layer for record in snapshot.parameters if record.nonfinite}
    records: list[WeightedRecord | ActivationRecord] = [*snapshot.weighted, *snapshot.activations]
    for record in sorted(records, key=lambda record: record.order):
        weights = record if isinstance(record, WeightedRecord) else None
        if weights is not None and weights.nonfinite_input:
            return record.name, "input"
        if record.nonfinite:
            return record.name, "weight" if weights is not None and record.name in broken else "output"
    if snapshot.nonfinite_loss:
        return None, "loss"
    signals = [record.name for record in reversed(snapshot.weighted) if _no_error_signal(record)]
    gradients = [record.layer or record.name for record in reversed(snapshot.parameters) if record.nonfinite_gradient]
    return next(((layer, "gradient") for layer in (*signals, *gradients)), None)


def _no_error_signal(record: WeightedRecord) -> bool:
    poisoned = record.signal is not None and not math.isfinite(float(record.signal.square))
    return poisoned or math.isinf(record.error_signal)
