"""output_mismatch: what the network hands to the loss is not what the loss is made for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Finding, Severity
from lightning_tricks.diagnosis.history.loss_calls import LossCalls, loss_calls
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS, RECOVERY
from lightning_tricks.diagnosis.rules.target_mismatch import TARGET_CHECKS, finding
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.loss_and_norm import LossRecord

ONE = 1e-2  # by which probabilities may miss the sum 1: bfloat16 keeps 8 bits; logits are never all so near
OVER_ZERO = 1e-2  # a log-probability is never above 0, but for rounding
NOT_ONE = 0.1  # abs(log sum exp) that rounding cannot give; two equal logits of 0 have .69
# Initial loss over chance. Torch's, He's and LeCun's starts give 1 to 2, a fine-tuned network on new labels up to 6,
# three residual blocks of He's weights without normalisation up to 9; beyond 15 plain SGD began to fail.
HIGH_START = 10.0
RAISED_START = 2.0  # and this is enough where the last layer's own weights are the reason:
GAIN = 20.0  # its outputs over its inputs, in root mean square; every scheme gives .6 to 1.4
LOUD_OUTPUTS = 3.0  # and outputs of that size: with small ones a large loss comes from class weights
FEW_PATTERNS = 8  # a loss over fewer is no estimate
AT_BOUND = 0.9  # share of its range that a bounded output reaches: then the bound is felt
LOWEST_LOGIT = -0.4  # an activation that goes no lower gives, as a logit, never a probability under .4
_WITH_LOGITS = ("binary_cross_entropy_with_logits", "multilabel_soft_margin_loss")
_LOGITS = ("cross_entropy", *_WITH_LOGITS)
_LOG_PROBABILITIES = ("nll_loss", "kl_div")

Check = Callable[[LossCalls], "Finding | None"]


def find_output_mismatch(history: Sequence[Snapshot]) -> list[Finding]:
    """For every loss what contradicts it most, at most one finding a layer."""
    worst: dict[str | None, Finding] = {}
    for calls in loss_calls(history):
        found = next((one for check in CHECKS if (one := check(calls)) is not None), None)
        if found is not None and (found.layer not in worst or found.rank > worst[found.layer].rank):
            worst[found.layer] = found
    return list(worst.values())


def probabilities_as_logits(calls: LossCalls) -> Finding | None:
    """A softmax before cross_entropy, which has its own, or before a loss that has its own sigmoid."""
    function = calls.latest.function
    if function not in _LOGITS:
        return None
    found = calls.course(_probabilities)
    if found is None:
        return None
    evidence = {"sum over outputs misses 1 by": calls.latest.sum_error, "loss": calls.latest.value}
    best = math.log1p((calls.latest.outputs - 1) / math.e)
    explanation = (
        f"The outputs are probabilities already, and {function} takes them for logits and squeezes them again. "
        + (
            f"The loss can then not fall below {best:.2f}, and its gradient is small where the network is wrong."
            if function == "cross_entropy"
            else "No probability can then leave the range from .5 to .73."
        )
    )
    todo = (remedies.NO_SOFTMAX, remedies.LOG_SOFTMAX)
    return finding(calls, calls.layer, "critical", found.since, evidence, explanation, todo)


def sigmoid_as_logits(calls: LossCalls) -> Finding | None:
    """A sigmoid before a loss that has its own."""
    latest, seen = calls.latest, properties_of(calls.function).probability
    if latest.function not in _WITH_LOGITS:
        return None
    found = calls.course(_between_zero_and_one)
    if found is None:
        return None
    # Logits may lie in [0, 1] for a while; only a sigmoid fills that range in the course of a training and stays in it.
    filled = latest.input_max - latest.input_min > AT_BOUND and found.run >= HYSTERESIS
    filled = filled and calls.looks[-1].step - found.since >= RECOVERY
    if not seen and not filled:
        return None
    evidence = {"smallest output": latest.input_min, "largest output": latest.input_max, "loss": latest.value}
    explanation = (
        f"The outputs went through a sigmoid, and {latest.function} applies another one to them. "
        "Every probability then lies between .5 and .73, so no pattern can be told to be negative."
    )
    return finding(
        calls,
        calls.layer,
        "critical" if seen else "warning",
        found.since,
        evidence,
        explanation,
        (remedies.NO_SIGMOID,),
    )


def no_log_probabilities(calls: LossCalls) -> Finding | None:
    """Logits or probabilities where log-probabilities belong."""
    function = calls.latest.function
    if function not in _LOG_PROBABILITIES:
        return None
    found = calls.course(lambda record: _no_log_probabilities(record))
    if found is None:
        return None
    latest = calls.latest
    kind = "probabilities" if _probabilities(latest) or _between_zero_and_one(latest) else "raw outputs"
    evidence = {
        "largest output": latest.input_max,
        "log of the sum of exp": latest.log_sum_error,
        "loss": latest.value,
    }
    explanation = (
        f"{function} is given {kind} and reads them as log-probabilities, which are never above 0. "
        "Its value is no likelihood then, and can be lowered without end or without learning."
    )
    todo = (remedies.CROSS_ENTROPY, remedies.LOG_SOFTMAX) if function == "nll_loss" else (remedies.LOG_SOFTMAX,)
    return finding(calls, calls.layer, "critical", found.since, evidence, explanation, todo)


def bounded_logits(calls: LossCalls) -> Finding | None:
    """An activation left behind the last layer: logits that cannot become as large, or as small, as they must."""
    latest, function = calls.latest, calls.function
    activation = calls.activation
    if latest.function not in _LOGITS or activation is None or function is None:
        return None
    if activation.patterns > 1.5 * latest.patterns or activation.units != max(latest.outputs, 1):
        return None  # pooled, as in SqueezeNet and Network in Network, whose last convolutions are rectified
    properties = properties_of(function)
    if properties.two_sided:
        found = calls.course(_within_one if calls.straight else _at_bound)
        severity: Severity = "info" if found is None else found.severity(critical=False)
        what = "is bounded to both sides"
    elif properties.cuts_at_zero or (latest.function in _WITH_LOGITS and properties.range[0] >= LOWEST_LOGIT):
        found = calls.course(lambda record: record.input_min > -0.4 and record.input_min <= 0.0)
        severity, what = "warning", "cuts them at zero"
    else:
        return None
    if found is None:
        return None
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
    return finding(
        calls, calls.layer, severity, found.since, evidence, explanation, (remedies.no_activation(function),)
    )


def high_start(calls: LossCalls) -> Finding | None:
    """An initial loss far above that of a uniform guess, or of predicting zero."""
    first = calls.records[0]
    if calls.looks[0].step != 0 or first.patterns < FEW_PATTERNS:
        return None
    guess, reference = _reference(first)
    gain = _gain(calls)
    if not first.value > (RAISED_START if gain > GAIN else HIGH_START) * reference or not _loud(first):
        return None
    recovered = calls.latest.value < reference
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
    todo = (remedies.small_output(first.weighted), remedies.initialize(), remedies.STANDARDIZE)
    severity: Severity = "warning" if recovered or len(calls.looks) < HYSTERESIS else "critical"
    return finding(calls, first.weighted, severity, 0, evidence, explanation, todo)


def twice_normalised(calls: LossCalls) -> Finding | None:
    """Log-probabilities in cross_entropy: its log_softmax leaves them as they are."""
    if calls.latest.function != "cross_entropy" or calls.latest.outputs < 2:
        return None
    found = calls.course(lambda record: record.log_sum_error < ONE)
    if found is None:
        return None
    evidence = {"log of the sum of exp": calls.latest.log_sum_error}
    explanation = (
        "The outputs are log-probabilities, and cross_entropy normalises them once more. "
        "That changes nothing but costs time; nll_loss is the loss for them."
    )
    return finding(calls, calls.layer, "info", found.since, evidence, explanation, (remedies.NO_SOFTMAX,))


CHECKS: tuple[Check, ...] = (
    probabilities_as_logits,
    sigmoid_as_logits,
    no_log_probabilities,
    bounded_logits,
    *TARGET_CHECKS,
    high_start,
    twice_normalised,
)


def _probabilities(record: LossRecord) -> bool:
    if record.outputs < 2 or record.patterns < 2 or not record.input_min >= 0.0 or not record.input_max <= 1.0 + ONE:
        return False
    if math.isnan(record.sum_error):  # not counted where every output has a target of its own: then their mean tells
        return record.patterns >= FEW_PATTERNS and abs(record.input_mean * record.outputs - 1.0) < 0.1 * ONE
    return record.sum_error < ONE


def _between_zero_and_one(record: LossRecord) -> bool:
    return record.input_min >= 0.0 and record.input_max <= 1.0


def _no_log_probabilities(record: LossRecord) -> bool:
    above = record.input_max > OVER_ZERO
    return above and (record.function == "kl_div" or record.log_sum_error > NOT_ONE)


def _within_one(record: LossRecord) -> bool:
    return record.input_min >= -1.0 and record.input_max <= 1.0


def _at_bound(record: LossRecord) -> bool:
    """Within [-1, 1], and felt there: a soft cap such as 30 tanh(a / 30) passes this range in a few steps."""
    return _within_one(record) and max(abs(record.input_min), abs(record.input_max)) >= AT_BOUND


def _reference(record: LossRecord) -> tuple[str, float]:
    if record.function == "mse_loss":
        return "loss of predicting zero", record.target_mean**2 + record.target_std**2
    return "loss of a uniform guess", record.chance


def _gain(calls: LossCalls) -> float:
    """Root mean square of the first outputs over that of what the last layer made them of."""
    first = calls.records[0]
    layer = next((record for record in calls.looks[0].weighted if record.name == first.weighted), None)
    if layer is None or first.activation is not None or not layer.input_std > 0:
        return math.nan
    return math.hypot(first.input_mean, first.input_std) / layer.input_std * math.sqrt(1.0 - layer.mean_energy)


def _loud(record: LossRecord) -> bool:
    if record.function == "binary_cross_entropy":  # probabilities: they are at their ends where the logits are loud
        spread = record.input_std**2 + (record.input_mean - 0.5) ** 2
        return spread > 0.2
    if record.function in ("cross_entropy", "nll_loss"):
        return record.input_std > LOUD_OUTPUTS
    return math.hypot(record.input_mean, record.input_std) > LOUD_OUTPUTS
