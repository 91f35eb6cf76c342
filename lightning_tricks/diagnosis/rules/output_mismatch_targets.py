"""output_mismatch, seen from the targets: shapes, ranges and numbers that the outputs cannot meet."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity
from lightning_tricks.diagnosis.history.loss_calls import LossCalls
from lightning_tricks.diagnosis.history.persistence import RECOVERY
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.diagnosis.rules.exploding_gradient import find_exploding_gradient
from lightning_tricks.probes.records.loss_and_norm import LossRecord

PROBLEM = "output_mismatch"
SCALE_TARGETS = Remedy(
    "scale_targets",
    "normalise the targets over the training data, output by output: (y - y.mean(0)) / y.std(0)",
)
SHUFFLE = Remedy("check_data", "check the labels, and shuffle: DataLoader(..., shuffle=True)")


@thresholds
class LIMITS:
    outside: float = 0.5  # standard deviations of the targets by which some of them lie out of reach
    near: float = 0.1  # of a unit, by which an output comes to its bound: then it is felt
    spare: float = 3.0  # outputs over classes seen; bytes of English text use 123 of 256, a background class adds one
    patterns: int = 500  # were the classes above those seen 3 % of the data, one had come, but for 1 in 10^6
    large_targets: float = 30.0  # root mean square; normalised targets have 1
    grows: float = 2.0  # times the first loss: the training diverges, and may not live to the third step looked at


REGRESSION = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
_CLASSES = ("cross_entropy", "nll_loss")


def no_activation(function: str) -> Remedy:
    """For an activation left behind the last layer."""
    return Remedy("remove_output_activation", f"take the {function} behind the last layer away")


def change_outputs(number: str) -> Remedy:
    """For a last layer with the wrong number of units."""
    return Remedy("change_outputs", f"give the last layer the right number of outputs: {number}")


def broadcast(calls: LossCalls) -> Finding | None:
    """[N, 1] against [N]: every output is compared with every target."""
    known = calls.latest.function in (*REGRESSION, "poisson_nll_loss", "gaussian_nll_loss")
    found = calls.persistence(lambda record: _joint(record) is not None) if known else None
    if found is None:
        return None
    latest = calls.latest
    ours, theirs, joint = list(latest.input_shape), list(latest.target_shape), list(_joint(latest) or ())
    evidence = {"shape of the outputs": str(ours), "shape of the targets": str(theirs), "compared as": str(joint)}
    outer = math.prod(joint) > max(math.prod(ours), math.prod(theirs))
    explanation = (
        f"Outputs of shape {ours} and targets of shape {theirs} are broadcast to {joint}, so every output is compared "
        f"with {'every target of the batch' if outer else 'targets that are not its own'}. "
        "The best the network can do then is to predict their mean."
    )
    severity: Severity = "critical" if outer else "warning"
    why = Criterion("elements compared", math.prod(joint), ">", min(math.prod(ours), math.prod(theirs)))
    todo = [same_shape(ours, theirs)]
    return found.finding(PROBLEM, latest.weighted, severity, evidence, explanation, todo, [why])


def same_shape(ours: Sequence[int], theirs: Sequence[int]) -> Remedy:
    """For outputs and targets that broadcast."""
    squeeze = f"output.squeeze({len(ours) - 1}), or target[:, None]" if len(ours) > len(theirs) else ""
    text = f"give both the same shape: {squeeze or 'target.squeeze(-1), or output[:, None]'} ({ours} against {theirs})"
    return Remedy("reshape_target", text)


def out_of_reach(calls: LossCalls) -> Finding | None:
    """Targets outside of what the last activation can give."""
    function, properties = calls.function, properties_of(calls.function)
    low, high = properties.range
    if calls.latest.function not in REGRESSION or function is None or not (math.isfinite(low) or math.isfinite(high)):
        return None
    latest, pooled = calls.latest, calls.pooled
    slack = 1e-3 + 1e-3 * abs(low if math.isfinite(low) else high)
    if pooled.input_min < low - slack or pooled.input_max > high + slack:
        return None  # scaled or shifted behind the activation
    std = max(pooled.target_std, 1e-12)  # of constant targets 0
    below, above = (low - pooled.target_min) / std, (pooled.target_max - high) / std
    felt = calls.straight and properties.two_sided
    under = below > LIMITS.outside and (felt or latest.input_min <= low + LIMITS.near)
    over = above > LIMITS.outside and (felt or latest.input_max >= high - LIMITS.near)
    if not under and not over:
        return None
    why = Criterion("standard deviations out of reach", max(below, above), ">", LIMITS.outside)
    evidence = {
        "activation": function,
        "smallest and largest target": f"{pooled.target_min:.3g}, {pooled.target_max:.3g}",
        "smallest and largest output": f"{pooled.input_min:.3g}, {pooled.input_max:.3g}",
        why.name: why.value,
    }
    explanation = (
        f"The targets go from {pooled.target_min:.3g} to {pooled.target_max:.3g}, but {function} can only give values "
        f"{_range(low, high)}. Those outside are never met, and an output at its bound gets no gradient."
    )
    found, todo = calls.all(), (no_activation(function), SCALE_TARGETS)
    severity = found.severity(critical=not low <= pooled.target_mean <= high)
    return found.finding(PROBLEM, calls.layer, severity, evidence, explanation, todo, [why])


def single_output(calls: LossCalls) -> Finding | None:
    """cross_entropy over one output: its softmax is 1 whatever the network says."""
    latest = calls.latest
    if latest.function not in _CLASSES or latest.outputs != 1:
        return None
    evidence, why = {"outputs": 1, "loss": latest.value}, Criterion("outputs", 1, "<", 2)
    explanation = (
        f"{latest.function} has a single output to choose from, so the probability of the right class is always 1. "
        "The loss is constant and nothing is learned."
    )
    todo = change_outputs("one a class, or one with binary_cross_entropy_with_logits")
    return calls.all().finding(PROBLEM, latest.weighted, "critical", evidence, explanation, [todo], [why])


def spare_outputs(calls: LossCalls) -> Finding | None:
    """Classes that no target ever names, or a single class that all targets name."""
    layer, first = _head(calls), calls.records[0]
    soft = len(first.target_shape) == len(first.input_shape)  # probabilities, not class numbers
    if layer is None or first.function not in _CLASSES or first.outputs < 2 or soft:
        return None
    (smallest, largest), outputs = calls.target_range, first.outputs
    patterns = sum(map(_independent, calls.records))
    classes = int(largest) + 1 if math.isfinite(largest) else outputs
    single = smallest == largest
    spare = classes * LIMITS.spare <= outputs
    if patterns < LIMITS.patterns or not (single or spare):
        return None
    found = calls.all()
    severity = found.severity() if single or found.at.step - found.since >= RECOVERY else "info"
    evidence = {"outputs": outputs, "largest class in a target": classes - 1, "patterns looked at": patterns}
    explanation = (
        f"All {patterns} targets looked at name class {classes - 1}. A constant output is then the best answer: the "
        "labels are wrong, or the data come in the order of their classes."
        if single
        else f"The network has {outputs} outputs, but no target among {patterns} names a class above "
        f"{classes - 1}. Outputs that nobody asks for only learn to be silent; are labels missing, or is the number "
        "of classes wrong?"
    )
    todo, why = [SHUFFLE], Criterion("patterns that name one class", patterns, ">=", LIMITS.patterns)
    if not single:
        todo.insert(0, change_outputs(f"{classes}"))
        why = Criterion("outputs", outputs, ">=", classes * LIMITS.spare)
    return found.finding(PROBLEM, layer, severity, evidence, explanation, todo, [why])


def large_targets(calls: LossCalls) -> Finding | None:
    """Targets so far from zero that the network has not even come to their mean."""
    if calls.latest.function not in REGRESSION:
        return None
    pooled = calls.pooled
    large = math.hypot(pooled.target_mean, pooled.target_std) > LIMITS.large_targets
    of_mean = pooled.target_std**2 if pooled.function == "mse_loss" else pooled.target_std
    judged = large and of_mean > 0
    found = calls.persistence(lambda record: record.value > of_mean) if judged else None
    if found is None:
        return _grown_to_them(calls) if judged else None
    evidence = {
        "target mean": pooled.target_mean,
        "target std": pooled.target_std,
        "output mean": calls.latest.input_mean,
        "output std": calls.latest.input_std,
        "loss": calls.latest.value,
        "loss of predicting the mean": of_mean,
    }
    explanation = (
        f"The targets have mean {pooled.target_mean:.3g} and standard deviation {pooled.target_std:.3g}, the outputs "
        f"{calls.latest.input_mean:.3g} and {calls.latest.input_std:.3g}: predicting the mean would still be better. "
        "Weights that fit normalised targets have a long way to go to such values, at huge gradients."
    )
    diverges = calls.latest.value > LIMITS.grows * calls.records[0].value
    why = Criterion("loss", calls.latest.value, ">", of_mean)
    severity = "warning" if diverges else found.severity()
    return found.finding(PROBLEM, pooled.weighted, severity, evidence, explanation, [SCALE_TARGETS], [why])


def _grown_to_them(calls: LossCalls) -> Finding | None:
    """Outputs that have become so large by weights whose product the gradient meets on its way back."""
    pooled, latest = calls.pooled, calls.latest
    size = math.hypot(latest.input_mean, latest.input_std)
    found = next(iter(find_exploding_gradient(calls.snapshots)), None) if size > LIMITS.large_targets else None
    if found is None or found.step == calls.snapshots[0].step:  # a gradient that begins so has another cause
        return None
    evidence = {
        "target mean": pooled.target_mean,
        "target std": pooled.target_std,
        "output mean": latest.input_mean,
        "output std": latest.input_std,
        **found.evidence,
    }
    explanation = (
        f"The targets have mean {pooled.target_mean:.3g} and standard deviation {pooled.target_std:.3g}, and the "
        f"weights have grown until the outputs have {latest.input_mean:.3g} and {latest.input_std:.3g}. The error "
        "signal is multiplied by them on its way back, which it was not at the start; of several outputs, one whose "
        "targets are small has no weight in the loss."
    )
    why = (Criterion("size of the outputs", size, ">", LIMITS.large_targets), *found.decided_by)
    return dataclasses.replace(
        found,
        problem=PROBLEM,
        layer=pooled.weighted,
        evidence=evidence,
        explanation=explanation,
        remedies=(SCALE_TARGETS,),
        decided_by=why,
    )


TARGET_CHECKS = (broadcast, single_output, out_of_reach, spare_outputs, large_targets)


def _joint(record: LossRecord) -> tuple[int, ...] | None:
    """The shape that both are broadcast to, where outputs meet targets of other patterns; None where all is well.

    A target that is stretched over the outputs (one label for a map of them, a constant) is often meant so.
    """
    ours, theirs = record.input_shape, record.target_shape
    if ours == theirs or not ours or not theirs:
        return None
    length = max(len(ours), len(theirs))
    pairs = list(zip((1,) * (length - len(ours)) + ours, (1,) * (length - len(theirs)) + theirs, strict=True))
    joint = tuple(max(pair) for pair in pairs)
    per_pattern = len(ours) == len(theirs) == 2 and ours[0] == theirs[0] > 1
    return joint if math.prod(joint) > math.prod(ours) or (per_pattern and theirs[1] == 1) else None


def _head(calls: LossCalls) -> str | None:
    """The layer whose units are the outputs; a contrastive loss compares patterns and has none."""
    name = calls.latest.weighted
    units = next((record.units for record in calls.snapshots[-1].weighted if record.name == name), 0)
    return name if name is not None and units == calls.latest.outputs else None


def _independent(record: LossRecord) -> int:
    """Patterns that tell something new: the pixels of one image name the same few classes."""
    return record.input_shape[0] if len(record.input_shape) > 2 else record.patterns


def _range(low: float, high: float) -> str:
    if math.isinf(high):
        return f"above {low:g}"
    return f"below {high:g}" if math.isinf(low) else f"from {low:g} to {high:g}"
