"""unnormalized_input: features far from mean 0 and standard deviation 1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Trait
from lightning_tricks.diagnosis.history.layers import input_layer, varies
from lightning_tricks.diagnosis.history.persistence import Persistence, persistence
from lightning_tricks.diagnosis.history.progress import is_stuck
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.diagnosis.rules.batch_mixing import preflight
from lightning_tricks.probes import Snapshot, WeightedRecord

SAME = Remedy("check_data", "look at what the loader gives: every pattern of a batch is the same")


@thresholds
class LIMITS:
    large: float = 3.0  # root mean square of the input; pixels in [0, 1] have about .5, normalised features 1
    huge: float = 30.0
    small: float = 0.02
    offset: float = 5.0  # abs(mean) over std, median over features that vary
    patterns: int = 16  # that are all the same: a single one always is
    rounding: float = 1e-6  # std over root mean square of what does not vary


@rule(
    "unnormalized_input",
    "code",
    "saturation dead_units bias_shift exploding_gradient non_finite learning_rate_too_high learning_rate_too_low "
    "output_mismatch overfitting",
    "input not normalized",
    [remedies.STANDARDIZE],
    clause="the input is not normalized",
    clauses={
        Trait.SAME_INPUT: "the input is the same for every pattern",
        Trait.LAYOUT: "the channels of the input lie on another axis",
    },
    order=6,
    table=(9, "`lt.nn.Standardize`"),
    needs="layers",
)
def find_unnormalized_input(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """The first layer reads features far from mean 0 and standard deviation 1.

    The first weighted layer, where it reads data and not an embedding.
    """
    layer = input_layer(history[-1])
    same = persistence(history, _is_constant)
    if same is None and _was_constant(history):
        same = Persistence.over(history)
    found = persistence(history, _is_far_off)
    if layer is not None and same is not None:
        yield _constant(history, same, layer)
    if layer is None or same is not None or found is None:
        return
    why = [criterion for criterion in _criteria(layer) if criterion.holds]
    size, offset = _size(layer), _offset(layer)
    evidence = {
        "root mean square": size,
        "input mean": layer.input_mean,
        "input std, within a feature": layer.input_std,
        **({"mean over std of a feature, median": offset} if offset >= LIMITS.offset else {}),
    }
    explanation = (
        f"The input has mean {layer.input_mean:.3g} and standard deviation {layer.input_std:.3g} where the initial "
        "weights expect 0 and 1. The first layer's units are driven out of their range, and its gradients are as much "
        "too large or too small."
    )
    traits = [Trait.FAINT] if size < 1.0 else [Trait.OFF_CENTRE] if offset >= LIMITS.offset else []
    severity = found.severity(critical=size >= LIMITS.huge)
    yield found.finding("unnormalized_input", layer.name, severity, evidence, explanation, why=why, traits=traits)


@remembered
def _is_far_off(snapshot: Snapshot) -> bool:
    return any(criterion.holds for criterion in _criteria(input_layer(snapshot)))


@remembered
def _is_constant(snapshot: Snapshot) -> bool:
    """Whether all patterns are the same, in every layer: one branch may well have a constant input."""
    data = input_layer(snapshot)
    return data is not None and data.patterns >= LIMITS.patterns and not any(map(varies, snapshot.weighted))


def _was_constant(history: Sequence[Snapshot]) -> bool:
    """Whether the patterns of the batch that was asked were all the same, whatever differs within a pattern."""
    _, asked = preflight(history)
    return asked is not None and asked.alike and asked.patterns >= LIMITS.patterns


def _constant(history: Sequence[Snapshot], found: Persistence, layer: WeightedRecord) -> Finding:
    _, asked = preflight(history)
    patterns = layer.patterns if asked is None or not asked.alike else asked.patterns
    explanation = (
        f"All {patterns} patterns that come in are the same. Whatever the weights are, the network gives one "
        "answer to all of them, and can learn no more than the best constant."
    )
    evidence = {"patterns looked at": patterns, "input std, within a feature": layer.input_std}
    why = [Criterion("input std, within a feature", layer.input_std, "<=", LIMITS.rounding * _size(layer))]
    one_target = asked is not None and asked.same_target  # else it may be a code that is decoded, constant by design
    severity = found.severity() if one_target or is_stuck(history) else "info"
    traits = [Trait.SAME_INPUT]
    return found.finding("unnormalized_input", layer.name, severity, evidence, explanation, [SAME], why, traits)


def _criteria(layer: WeightedRecord | None) -> Iterator[Criterion]:
    if layer is not None:
        size = _size(layer)
        yield Criterion("root mean square", size, ">", LIMITS.large)
        if size > 0:
            yield Criterion("root mean square", size, "<", LIMITS.small)
        yield Criterion("mean over std of a feature, median", _offset(layer), ">", LIMITS.offset)


def _size(layer: WeightedRecord) -> float:
    """Root mean square over features: E x^2 = var / (1 - mean energy) where x varies at all."""
    varying = 1.0 - layer.mean_energy
    return layer.input_std / math.sqrt(varying) if varying > 0 else abs(layer.input_mean)


def _offset(layer: WeightedRecord) -> float:
    if layer.sums is None or layer.sums.input is None:
        varying = 1.0 - layer.mean_energy
        return math.sqrt(layer.mean_energy / varying) if varying > 0 else 0.0
    moments = layer.sums.input
    std = np.asarray(moments.std, np.float64)
    varies = std > 1e-6 * max(float(np.abs(moments.mean).max()), 1e-30)
    offsets = np.abs(np.asarray(moments.mean, np.float64)[varies]) / std[varies]
    return float(np.median(offsets)) if offsets.size else 0.0
