"""output_mismatch: what the network hands to the loss is not what the loss is made for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity
from lightning_tricks.diagnosis.history.loss_calls import LossCalls, loss_calls
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS, RECOVERY
from lightning_tricks.diagnosis.history.progress import gradient_share
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.diagnosis.rules.learning_rate_too_low import find_learning_rate_too_low
from lightning_tricks.diagnosis.rules.output_mismatch_path import PATH_CHECKS, broadcast_by_hand
from lightning_tricks.diagnosis.rules.output_mismatch_start import high_start
from lightning_tricks.diagnosis.rules.output_mismatch_targets import PROBLEM, REGRESSION, TARGET_CHECKS, no_activation
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.loss_and_norm import LossRecord

NO_SOFTMAX = Remedy("remove_output_activation", "take the softmax away: cross_entropy wants the raw outputs (logits)")
NO_SIGMOID = Remedy("remove_output_activation", "take the sigmoid away, or use F.binary_cross_entropy")
LOG_SOFTMAX = Remedy("change_loss", "or give log-probabilities, x.log_softmax(1), to nll_loss or kl_div")
CROSS_ENTROPY = Remedy("change_loss", "use F.cross_entropy on the raw outputs")
CLASSES = Remedy("change_loss", "use F.cross_entropy(x, y) on what goes into the softmax, with the classes as targets")


@thresholds
class LIMITS:
    one: float = 1e-2  # by which probabilities may miss the sum 1: bfloat16 keeps 8 bits; logits are never all so near
    mean_one: float = 1e-3  # the same for the mean of all, times their number
    over_zero: float = 1e-2  # a log-probability is never above 0, but for rounding
    not_one: float = 0.1  # abs(log sum exp) that rounding cannot give; two equal logits of 0 have .69
    pooled: float = 1.5  # patterns of an activation over those of the loss: its outputs were pooled between
    few_patterns: int = 8  # a loss over fewer is no estimate
    at_bound: float = 0.9  # share of its range that a bounded output reaches: then the bound is felt
    low_logit: float = -0.4  # units that are never below, as softplus, gelu and silu: no probability under .4


_WITH_LOGITS = ("binary_cross_entropy_with_logits", "multilabel_soft_margin_loss")
_LOGITS = ("cross_entropy", *_WITH_LOGITS)


@rule(
    PROBLEM,
    "code",
    "vanishing_gradient exploding_gradient learning_rate_too_low learning_rate_too_high bias_shift dead_units "
    "saturation linearity overfitting non_finite",
    "output does not fit the loss",
    clause="the output does not fit the loss",
    order=8,
    reads="thinned",
    table=(14, "the line to change"),
    needs="losses",
)
def find_output_mismatch(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Softmax before cross-entropy, a bounded output, mixed axes, shapes that broadcast, a loud last layer.

    For every loss what contradicts it most, at most one finding a layer.
    """
    worst: dict[str | None, Finding] = {}
    for calls in loss_calls(history):
        found = next(filter(None, (check(calls) for check in CHECKS)), None)
        if found is not None and (found.layer not in worst or found.rank > worst[found.layer].rank):
            evidence = {"loss function": calls.latest.function, **found.evidence}
            worst[found.layer] = replace(found, evidence=evidence)
    yield from worst.values()
    yield from broadcast_by_hand(history)


def probabilities_as_logits(calls: LossCalls) -> Finding | None:
    """A softmax before cross_entropy, which has its own, or before a loss that has its own sigmoid."""
    function = calls.latest.function
    found = calls.persistence(_probabilities) if function in _LOGITS else None
    if found is None:
        return None
    evidence = {"sum over outputs misses 1 by": calls.latest.sum_error, "loss": calls.latest.value}
    harm = "No probability can then leave the range from .5 to .73."
    if function == "cross_entropy":
        best = _best_of_probabilities(calls.latest)
        evidence["reachable"] = best
        harm = f"The loss can then not fall below {best:.2f}, and its gradient is small where the network is wrong."
    wrong = f"The outputs are probabilities already, and {function} takes them for logits and squeezes them again."
    todo, why = (NO_SOFTMAX, LOG_SOFTMAX), [_sums_to_one(calls.latest)]
    return found.finding(PROBLEM, calls.layer, "critical", evidence, f"{wrong} {harm}", todo, why)


def _best_of_probabilities(record: LossRecord) -> float:
    """What cross_entropy loses where probabilities are sure of the right class: more, where it smooths the targets."""
    classes = record.outputs
    smoothed = record.smoothing * (1 - 1 / classes) if record.smoothing > 0 else 0.0
    return min(math.log1p((classes - 1) / math.e) + smoothed, math.log(classes))


def sigmoid_as_logits(calls: LossCalls) -> Finding | None:
    """A sigmoid before a loss that has its own."""
    latest, seen = calls.latest, properties_of(calls.function).probability
    found = calls.persistence(_between_zero_and_one) if latest.function in _WITH_LOGITS else None
    if found is None:
        return None
    # Logits may lie in [0, 1] for a while; only a sigmoid fills that range in the course of a training and stays in it.
    long = found.run >= HYSTERESIS and calls.snapshots[-1].step - found.since >= RECOVERY
    if not seen and not (long and latest.input_max - latest.input_min > LIMITS.at_bound):
        return None
    evidence = {"smallest output": latest.input_min, "largest output": latest.input_max, "loss": latest.value}
    explanation = (
        f"The outputs went through a sigmoid, and {latest.function} applies another one to them. "
        "Every probability then lies between .5 and .73, so no pattern can be told to be negative."
    )
    todo, why = [NO_SIGMOID], [Criterion("largest output", latest.input_max, "<=", 1.0)]
    return found.finding(PROBLEM, calls.layer, "critical" if seen else "warning", evidence, explanation, todo, why)


def no_log_probabilities(calls: LossCalls) -> Finding | None:
    """Logits or probabilities where log-probabilities belong."""
    latest, function = calls.latest, calls.latest.function
    found = calls.persistence(_no_log_probabilities) if function in ("nll_loss", "kl_div") else None
    if found is None:
        return None
    kind = "probabilities" if _probabilities(latest) or _between_zero_and_one(latest) else "raw outputs"
    why = Criterion("largest output", latest.input_max, ">", LIMITS.over_zero)
    evidence = {"largest output": latest.input_max, "log of the sum of exp": latest.log_sum_error, "loss": latest.value}
    explanation = (
        f"{function} is given {kind} and reads them as log-probabilities, which are never above 0. "
        "Its value is no likelihood then, and can be lowered without end or without learning."
    )
    todo = (CROSS_ENTROPY, LOG_SOFTMAX) if function == "nll_loss" else (LOG_SOFTMAX,)
    return found.finding(PROBLEM, calls.layer, "critical", evidence, explanation, todo, [why])


def softmax_by_distance(calls: LossCalls) -> Finding | None:
    """A softmax whose outputs are to come near to 0 and 1, where that holds the training back.

    Many networks learn so; where each weight's steps are of a size of their own, small gradients do not matter.
    """
    latest = calls.latest
    found = calls.persistence(_probabilities) if latest.function in REGRESSION and _one_hot(latest) else None
    if found is None or math.isnan(gradient_share(calls.snapshots[0])):
        return None
    slow = next(iter(find_learning_rate_too_low(calls.snapshots)), None)
    if slow is None or slow.remedies[0].action != "raise_learning_rate":
        return None  # clipped, or warming up
    explanation = (
        f"{latest.function} takes the distance of a softmax's outputs to 0 and 1. Its gradient is divided by the "
        f"{latest.outputs} outputs and multiplied by the slope of the softmax, which is .25 at most and near 0 where "
        "one output is sure, right or wrong. So the updates are tiny, at a learning rate that another loss can do with."
    )
    evidence = {"outputs": latest.outputs, "loss": latest.value, **slow.evidence}
    todo, why = (CLASSES, *slow.remedies), (_sums_to_one(latest), *slow.decided_by)
    return found.finding(PROBLEM, calls.layer, slow.severity, evidence, explanation, todo, why)


def bounded_logits(calls: LossCalls) -> Finding | None:
    """An activation left behind the last layer: logits that cannot become as large, or as small, as they must."""
    latest, function, activation = calls.latest, calls.function, calls.activation
    if latest.function not in _LOGITS or activation is None or function is None:
        return None
    if activation.patterns > LIMITS.pooled * latest.patterns or activation.units != max(latest.outputs, 1):
        return None  # pooled, as in SqueezeNet and Network in Network, whose last convolutions are rectified
    properties = properties_of(function)
    if properties.two_sided:
        found = calls.persistence(_within_one if calls.straight else _at_bound)
        what, why = "is bounded to both sides", Criterion("largest output", latest.input_max, "<=", 1.0)
    elif properties.cuts_at_zero or (latest.function in _WITH_LOGITS and properties.range[0] >= LIMITS.low_logit):
        found = calls.persistence(lambda record: LIMITS.low_logit < record.input_min <= 0.0)
        what, why = "cuts them at zero", Criterion("smallest output", latest.input_min, ">", LIMITS.low_logit)
    else:
        return None
    if found is None:
        return None
    severity: Severity = found.severity() if properties.two_sided else "warning"
    evidence = {
        "activation": function,
        "smallest output": latest.input_min,
        "largest output": latest.input_max,
        "share that is zero": latest.zero_share,
    }
    explanation = (
        f"The logits pass through {function}, which {what}, before {latest.function}. "
        "An output that is cut off gets no gradient, and confident predictions are out of reach."
    )
    return found.finding(PROBLEM, calls.layer, severity, evidence, explanation, [no_activation(function)], [why])


def twice_normalised(calls: LossCalls) -> Finding | None:
    """Log-probabilities in cross_entropy: its log_softmax leaves them as they are."""
    latest = calls.latest
    judged = latest.function == "cross_entropy" and latest.outputs >= 2
    found = calls.persistence(lambda record: record.log_sum_error < LIMITS.one) if judged else None
    if found is None:
        return None
    why = Criterion("log of the sum of exp", latest.log_sum_error, "<", LIMITS.one)
    explanation = (
        "The outputs are log-probabilities, and cross_entropy normalises them once more. "
        "That changes nothing but costs time; nll_loss is the loss for them."
    )
    evidence = {why.name: why.value}
    return found.finding(PROBLEM, calls.layer, "info", evidence, explanation, [NO_SOFTMAX], [why])


_OUTPUT_CHECKS = (probabilities_as_logits, sigmoid_as_logits, no_log_probabilities, softmax_by_distance, bounded_logits)
CHECKS = (*_OUTPUT_CHECKS, *PATH_CHECKS, *TARGET_CHECKS, high_start, twice_normalised)


def _probabilities(record: LossRecord) -> bool:
    if min(record.outputs, record.patterns) < 2 or not 0.0 <= record.input_min <= record.input_max <= 1.0 + LIMITS.one:
        return False
    enough = record.patterns >= LIMITS.few_patterns or not math.isnan(record.sum_error)
    return enough and _sums_to_one(record).holds


def _sums_to_one(record: LossRecord) -> Criterion:
    if math.isnan(record.sum_error):  # not counted where every output has a target of its own: then their mean tells
        missed = abs(record.input_mean * record.outputs - 1.0)
        return Criterion("mean output times outputs misses 1 by", missed, "<", LIMITS.mean_one)
    return Criterion("sum over outputs misses 1 by", record.sum_error, "<", LIMITS.one)


def _between_zero_and_one(record: LossRecord) -> bool:
    return record.input_min >= 0.0 and record.input_max <= 1.0


def _no_log_probabilities(record: LossRecord) -> bool:
    above = record.input_max > LIMITS.over_zero
    return above and (record.function == "kl_div" or record.log_sum_error > LIMITS.not_one)


def _within_one(record: LossRecord) -> bool:
    return record.input_min >= -1.0 and record.input_max <= 1.0


def _at_bound(record: LossRecord) -> bool:
    """Within [-1, 1], and felt there: a soft cap such as 30 tanh(a / 30) passes this range in a few steps."""
    return _within_one(record) and max(abs(record.input_min), abs(record.input_max)) >= LIMITS.at_bound


def _one_hot(record: LossRecord) -> bool:
    """Whether the targets are 0 and 1 only, one of each row being 1."""
    mean, outputs = record.target_mean, record.outputs
    zeros_and_ones = (record.target_min, record.target_max) == (0.0, 1.0)
    spread = math.isclose(record.target_std**2, mean * (1.0 - mean), rel_tol=LIMITS.one)
    return zeros_and_ones and spread and outputs > 2 and math.isclose(mean * outputs, 1.0, rel_tol=LIMITS.one)
