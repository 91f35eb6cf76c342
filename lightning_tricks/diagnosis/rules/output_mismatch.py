"""output_mismatch: what the network hands to the loss is not what the loss is made for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity, Trait
from lightning_tricks.diagnosis.history.loss_calls import LossCalls, loss_calls
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS, RECOVERY
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.diagnosis.rules.output_mismatch_path import PATH_CHECKS, broadcast_by_hand
from lightning_tricks.diagnosis.rules.output_mismatch_targets import PROBLEM, TARGET_CHECKS, no_activation
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.loss_and_norm import LossRecord

NO_SOFTMAX = Remedy("remove_output_activation", "take the softmax away: cross_entropy wants the raw outputs (logits)")
NO_SIGMOID = Remedy("remove_output_activation", "take the sigmoid away, or use F.binary_cross_entropy")
LOG_SOFTMAX = Remedy("change_loss", "or give log-probabilities, x.log_softmax(1), to nll_loss or kl_div")
CROSS_ENTROPY = Remedy("change_loss", "use F.cross_entropy on the raw outputs")


@thresholds
class LIMITS:
    one: float = 1e-2  # by which probabilities may miss the sum 1: bfloat16 keeps 8 bits; logits are never all so near
    mean_one: float = 1e-3  # the same for the mean of all, times their number
    over_zero: float = 1e-2  # a log-probability is never above 0, but for rounding
    not_one: float = 0.1  # abs(log sum exp) that rounding cannot give; two equal logits of 0 have .69
    # Initial loss over chance. Torch's, He's and LeCun's starts give 1 to 2, a fine-tuned network on new labels up to
    # 6, three residual blocks of He's weights without normalisation up to 9; beyond 15 plain SGD began to fail.
    high_start: float = 10.0
    raised_start: float = 2.0  # and this is enough where the last layer's own weights are the reason:
    gain: float = 20.0  # its outputs over its inputs, in root mean square; every scheme gives .6 to 1.4
    loud_outputs: float = 3.0  # and outputs of that size: with small ones a large loss comes from class weights
    loud_probabilities: float = 0.2  # mean square about .5, of which .25 is all: at their ends, the logits are loud
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
    order=5,
    reads="thinned",
    table=(14, "the line to change"),
)
def find_output_mismatch(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Softmax before cross-entropy, a bounded output, shapes that broadcast, too many outputs, a loud last layer.

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
        best = math.log1p((calls.latest.outputs - 1) / math.e)
        harm = f"The loss can then not fall below {best:.2f}, and its gradient is small where the network is wrong."
    wrong = f"The outputs are probabilities already, and {function} takes them for logits and squeezes them again."
    todo, why = (NO_SOFTMAX, LOG_SOFTMAX), [_sums_to_one(calls.latest)]
    return found.finding(PROBLEM, calls.layer, "critical", evidence, f"{wrong} {harm}", todo, why)


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


def high_start(calls: LossCalls) -> Finding | None:
    """An initial loss far above that of a uniform guess, or of predicting zero."""
    first = calls.records[0]
    if calls.snapshots[0].step != 0 or first.patterns < LIMITS.few_patterns:
        return None
    (guess, reference), gain = _reference(first), _gain(calls)
    bound = LIMITS.raised_start if gain > LIMITS.gain else LIMITS.high_start
    if not first.value > bound * reference > 0 or not _loud(first):
        return None
    evidence = {
        "initial loss": first.value,
        guess: reference,
        "initial loss over it": first.value / reference,
        "standard deviation of the outputs": first.input_std,
        "outputs over inputs of the last layer": gain,
        "loss now": calls.latest.value,
    }
    explanation = (
        f"The first loss is {first.value:.3g}, where {guess.removeprefix('loss of ')} has {reference:.3g}: the network "
        "begins with large outputs that are wrong. Its first steps are spent on taking them back, at gradients that "
        "throw the weights about."
    )
    small = Remedy("initialize", "begin with small weights in the last layer: std 0.01, bias 0", first.weighted)
    todo = (small, remedies.initialize(), remedies.STANDARDIZE)
    found, why = calls.all(), [Criterion("initial loss", first.value, ">", bound * reference)]
    severity: Severity = "warning" if calls.latest.value < reference or found.run < HYSTERESIS else "critical"
    return found.finding(PROBLEM, first.weighted, severity, evidence, explanation, todo, why, [Trait.FIRST_LOSS])


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


_OUTPUT_CHECKS = (probabilities_as_logits, sigmoid_as_logits, no_log_probabilities, bounded_logits)
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


def _reference(record: LossRecord) -> tuple[str, float]:
    if record.function == "mse_loss":
        return "loss of predicting zero", record.target_mean**2 + record.target_std**2
    return "loss of a uniform guess", record.chance


def _gain(calls: LossCalls) -> float:
    """Root mean square of the first outputs over that of what the last layer made them of."""
    first = calls.records[0]
    layer = next((record for record in calls.snapshots[0].weighted if record.name == first.weighted), None)
    if layer is None or first.activation is not None or not layer.input_std > 0:
        return math.nan
    return math.hypot(first.input_mean, first.input_std) / layer.input_std * math.sqrt(1.0 - layer.mean_energy)


def _loud(record: LossRecord) -> bool:
    if record.function == "binary_cross_entropy":  # probabilities: they are at their ends where the logits are loud
        return record.input_std**2 + (record.input_mean - 0.5) ** 2 > LIMITS.loud_probabilities
    if record.function in ("cross_entropy", "nll_loss"):
        return record.input_std > LIMITS.loud_outputs
    return math.hypot(record.input_mean, record.input_std) > LIMITS.loud_outputs
