"""output_mismatch, on the way to the loss: axes that a view mixed, broadcasts by hand, cosines, other softmaxes."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Trait
from lightning_tricks.diagnosis.history.loss_calls import LossCalls
from lightning_tricks.diagnosis.history.persistence import persistence
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.diagnosis.rules.output_mismatch_targets import PROBLEM, same_shape
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.loss_and_norm import LossRecord
from lightning_tricks.probes.records.loss_path import SoftmaxRecord

SCALE = Remedy("scale_logits", "multiply the cosines by a scale, fixed or learned: 16 * cosine; 16 to 64 are usual")


@thresholds
class LIMITS:
    never_under: float = 0.1  # lowest loss over a guess's: cosines of ten classes have .35, with a scale of 16 1e-13
    not_one: float = 0.1  # abs(log sum exp) over classes that rounding cannot give


def classes_across_units(calls: LossCalls) -> Finding | None:
    """[N, C, H, W] viewed as [-1, C], or [N, T, C] as [N, C, T]: what the loss takes for classes are no units."""
    latest = calls.latest
    found = calls.persistence(lambda record: record.positions > 1)
    if found is None:
        return None
    ours, theirs, axis = list(latest.layer_shape), list(latest.input_shape), latest.unit_axis % len(latest.layer_shape)
    why = Criterion("positions that the classes of one pattern come from", latest.positions, ">", 1)
    evidence = {"shape of the layer's output": str(ours), "shape in the loss": str(theirs), why.name: why.value}
    explanation = (
        f"The layer gives {ours} with the {ours[axis]} classes in dimension {axis}, and the loss is handed {theirs} "
        "with the classes in dimension 1. A view between the two keeps the order of the numbers and moves no "
        f"dimension: what {latest.function} takes for the classes of one pattern are outputs at {why.value} positions, "
        "and the target of another position is asked of them."
    )
    todo = [Remedy("move_axis", f"move the dimension of the classes before the view: {_moved(latest)}")]
    return found.finding(PROBLEM, latest.weighted, "warning", evidence, explanation, todo, [why], [Trait.IN_CODE])


def cosines_as_logits(calls: LossCalls) -> Finding | None:
    """Cosines of normalised patterns and normalised weights, without a scale that makes probabilities of them."""
    latest = calls.latest
    found = calls.persistence(lambda record: _lowest(record) > LIMITS.never_under * math.log(max(record.outputs, 2)))
    if found is None:
        return None
    why = Criterion(
        "lowest loss that such logits can have", _lowest(latest), ">", LIMITS.never_under * math.log(latest.outputs)
    )
    evidence = {"largest output possible": latest.bound, "reachable": why.value, "loss": latest.value}
    explanation = (
        f"The logits are cosines, products of vectors of length 1, and stay within {latest.bound:g} of zero. "
        f"{latest.function} can then not fall below {why.value:.2f}, and the probabilities stay nearly flat."
    )
    return found.finding(PROBLEM, latest.weighted, found.severity(), evidence, explanation, [SCALE], [why])


def softmax_over_patterns(calls: LossCalls) -> Finding | None:
    """nll_loss takes log-probabilities of classes, and the softmax before it ran over the patterns of the batch."""
    latest, softmax = calls.latest, _over_patterns(calls.snapshots[-1], calls.latest)
    found = calls.persistence_in(lambda snapshot, record: _over_patterns(snapshot, record) is not None)
    if found is None or softmax is None:
        return None
    why = Criterion("log of the sum of exp over classes", latest.log_sum_error, ">", LIMITS.not_one)
    evidence = {"shape": str(list(softmax.shape)), "axis": softmax.axis, why.name: why.value, "loss": latest.value}
    explanation = (
        f"{softmax.function} at {softmax.name} runs over dimension {softmax.axis} of {list(softmax.shape)}, and "
        f"{latest.function} takes dimension 1 for the classes. The patterns of a batch compete for a class then, and "
        "what one is given depends on the others."
    )
    todo = [Remedy("change_axis", f"{softmax.function} over the classes: dim=1 (or dim=-1)")]
    return found.finding(PROBLEM, softmax.name, "critical", evidence, explanation, todo, [why])


def broadcast_by_hand(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """The same in a loss that is written by hand."""
    for record in history[-1].broadcasts:
        found = persistence(history, functools.partial(_has_broadcast, record.name))
        ours, theirs = list(record.output_shape), list(record.target_shape)
        joint = list(np.broadcast_shapes(record.output_shape, record.target_shape))
        if found is None:
            continue
        evidence = {
            "operation": record.function,
            "shape of the outputs": str(ours),
            "shape of the targets": str(theirs),
            "compared as": str(joint),
        }
        explanation = (
            f"In {record.function} on the way to the loss, outputs of shape {ours} and targets of shape {theirs} are "
            f"broadcast to {joint}, so every output meets every target of the batch. "
            "The best the network can do then is to predict their mean."
        )
        why = Criterion("elements compared", math.prod(joint), ">", math.prod(ours))
        todo = [same_shape(ours, theirs)]
        yield found.finding(PROBLEM, record.layer, "critical", evidence, explanation, todo, [why], [Trait.IN_CODE])


def _has_broadcast(name: str, snapshot: Snapshot) -> bool:
    return any(record.name == name for record in snapshot.broadcasts)


def _moved(record: LossRecord) -> str:
    """The line that puts the units of a layer's output where the loss has its classes."""
    dimensions = len(record.layer_shape)
    axis = record.unit_axis % dimensions
    others = ", ".join(str(each) for each in range(dimensions) if each != axis)
    if len(record.input_shape) == 2:
        moved = "" if record.unit_axis == -1 else f".permute({others}, {axis})"
        return f"out{moved}.reshape(-1, {record.outputs})"
    if axis == 1:
        return "out as it is" if len(record.input_shape) == dimensions else "out.flatten(2)"
    return f"out.transpose(1, {axis})" if dimensions == 3 else f"out.movedim({axis}, 1)"


def _lowest(record: LossRecord) -> float:
    """The loss where every logit is at its bound, the right one above and all others below; NaN without a bound."""
    return math.log1p((record.outputs - 1) * math.exp(-2.0 * record.bound)) if record.function == "cross_entropy" else 0


def _over_patterns(snapshot: Snapshot, record: LossRecord) -> SoftmaxRecord | None:
    """The last softmax before a loss, of the same shape, where it runs over no classes and their sum shows it."""
    before = [softmax for softmax in snapshot.softmaxes if softmax.after < record.order]
    if record.function != "nll_loss" or not before or not record.log_sum_error > LIMITS.not_one:
        return None
    return before[-1] if before[-1].shape == record.input_shape and before[-1].axis == 0 else None


PATH_CHECKS = (classes_across_units, cosines_as_logits, softmax_over_patterns)
