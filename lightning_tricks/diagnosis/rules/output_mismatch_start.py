"""output_mismatch, seen from the first loss: a network that begins sure of what is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity, Trait
from lightning_tricks.diagnosis.history import progress
from lightning_tricks.diagnosis.history.layers import weight_scale
from lightning_tricks.diagnosis.history.loss_calls import LossCalls
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS, RECOVERY
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.diagnosis.rules.output_mismatch_targets import PROBLEM
from lightning_tricks.diagnosis.rules.unnormalized_input import find_unnormalized_input
from lightning_tricks.probes import WeightedRecord
from lightning_tricks.probes.records.loss_and_norm import LossRecord


@thresholds
class LIMITS:
    # Initial loss over chance. Torch's, He's and LeCun's starts give 1 to 2, a fine-tuned network on new labels up to
    # 6, three residual blocks of He's weights without normalisation up to 9; beyond 15 plain SGD began to fail.
    high_start: float = 10.0
    raised_start: float = 2.0  # and this is enough where the last layer's own weights are the reason:
    weights: float = 20.0  # RMS(w) sqrt(fan_in), which every scheme gives .6 to 1.4
    multiplied: float = 3.0  # outputs over what the last layer gave: a factor behind it, as cosine heads have
    loud_outputs: float = 3.0  # and outputs of that size: with small ones a large loss comes from class weights
    loud_probabilities: float = 0.2  # mean square about .5, of which .25 is all: at their ends, the logits are loud
    few_patterns: int = 8  # a loss over fewer is no estimate
    recovered: float = 0.7  # loss over that of a guess: then the start has done no harm that lasts


def high_start(calls: LossCalls) -> Finding | None:
    """An initial loss far above that of a uniform guess, or of predicting zero."""
    first = calls.records[0]
    if calls.snapshots[0].step != 0 or first.patterns < LIMITS.few_patterns:
        return None
    (guess, reference), weights = _reference(first), weight_scale(calls.snapshots[0], first.weighted) or math.nan
    own = weights > LIMITS.weights and first.activation is None
    bound = LIMITS.raised_start if own else LIMITS.high_start
    if not first.value > bound * reference > 0 or not _loud(first):
        return None
    now = progress.median(record.value for record in calls.records[-HYSTERESIS:])
    evidence = {
        "initial loss": first.value,
        guess: reference,
        "initial loss over it": first.value / reference,
        "standard deviation of the outputs": first.input_std,
        "weights of the last layer, RMS times root of fan-in": weights,
        "loss now": now,
    }
    explanation = (
        f"The first loss is {first.value:.3g}, where {guess.removeprefix('loss of ')} has {reference:.3g}: the network "
        "begins with large outputs that are wrong. Its first steps are spent on taking them back, at gradients that "
        "throw the weights about."
    )
    found, why = calls.all(), [Criterion("initial loss", first.value, ">", bound * reference)]
    severity: Severity = "warning" if now < reference or found.run < HYSTERESIS else "critical"
    if own:
        why.append(Criterion("weights of the last layer", weights, ">", LIMITS.weights))
    elif now < LIMITS.recovered * reference and found.run >= HYSTERESIS:
        severity, explanation = "info", f"{explanation} It has come down to {now:.3g} since."
    elif _scaled(calls) and (
        found.at.step - found.since < RECOVERY or calls.latest.value < LIMITS.recovered * reference
    ):
        severity = "info"  # of cosines times 64 the first loss is 30, and after 100 steps half of a guess's
    todo = _remedies(calls, own)
    return found.finding(PROBLEM, first.weighted, severity, evidence, explanation, todo, why, [Trait.FIRST_LOSS])


def _remedies(calls: LossCalls, own: bool) -> Sequence[Remedy]:
    """What makes the outputs loud: the last layer's weights, a factor behind them, or what they are given."""
    start, first = calls.snapshots[0], calls.records[0]
    if own:
        return [Remedy("initialize", "begin with small weights in this layer: std 0.01, bias 0", first.weighted)]
    if _multiplied(calls):
        return [Remedy("lower_scale", "multiply the outputs of this layer by less before the loss", first.weighted)]
    standardize = [remedies.STANDARDIZE] if find_unnormalized_input([start]) else []
    return [*standardize, remedies.initialize()]


def _last_layer(calls: LossCalls) -> WeightedRecord | None:
    name = calls.records[0].weighted
    return next((record for record in calls.snapshots[0].weighted if record.name == name), None)


def _multiplied(calls: LossCalls) -> bool:
    """Whether a factor behind the last layer makes the outputs loud."""
    first, last = calls.records[0], _last_layer(calls)
    given = math.nan if last is None else math.hypot(last.mean, last.std)
    return math.hypot(first.input_mean, first.input_std) > LIMITS.multiplied * given


def _scaled(calls: LossCalls) -> bool:
    """Whether the outputs are cosines times a number, or of computed weights, as directions are, and multiplied."""
    last = _last_layer(calls)
    computed = last is not None and last.weight is None and _multiplied(calls)
    return computed or not math.isnan(calls.records[0].bound)


def _reference(record: LossRecord) -> tuple[str, float]:
    if record.function == "mse_loss":
        return "loss of predicting zero", record.target_mean**2 + record.target_std**2
    return "loss of a uniform guess", record.chance


def _loud(record: LossRecord) -> bool:
    if record.function == "binary_cross_entropy":  # probabilities: they are at their ends where the logits are loud
        return record.input_std**2 + (record.input_mean - 0.5) ** 2 > LIMITS.loud_probabilities
    return math.hypot(record.input_mean, record.input_std) > LIMITS.loud_outputs
