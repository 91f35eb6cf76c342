"""unnormalized_input: features far from mean 0 and standard deviation 1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Criterion, Finding, Trait
from lightning_tricks.diagnosis.history.persistence import persistence
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import Snapshot, WeightedRecord


@thresholds
class LIMITS:
    large: float = 3.0  # root mean square of the input; pixels in [0, 1] have about .5, normalised features 1
    huge: float = 30.0
    small: float = 0.02
    offset: float = 5.0  # abs(mean) over std, median over features that vary


@rule(
    "unnormalized_input",
    "code",
    "saturation dead_units bias_shift exploding_gradient non_finite learning_rate_too_high learning_rate_too_low "
    "output_mismatch overfitting",
    "input not normalized",
    [remedies.STANDARDIZE],
    clause="the input is not normalized",
    order=3,
    table=(9, "`lt.nn.Standardize`"),
)
def find_unnormalized_input(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """The first layer reads features far from mean 0 and standard deviation 1.

    The first weighted layer, where it reads data and not an embedding.
    """
    layer = _reader(history[-1])
    found = persistence(history, _is_far_off)
    if layer is None or found is None:
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
        "weights expect 0 and 1. The first layer's units are driven to one side and its gradients are scaled alike."
    )
    traits = [Trait.FAINT] if size < 1.0 else [Trait.OFF_CENTRE] if offset >= LIMITS.offset else []
    severity = found.severity(critical=size >= LIMITS.huge)
    yield found.finding("unnormalized_input", layer.name, severity, evidence, explanation, why=why, traits=traits)


@remembered
def _is_far_off(snapshot: Snapshot) -> bool:
    return any(criterion.holds for criterion in _criteria(_reader(snapshot)))


def _reader(snapshot: Snapshot) -> WeightedRecord | None:
    """The first weighted operation, unless an embedding or an activation comes before its input."""
    first = None if snapshot.partial else next(iter(snapshot.weighted), None)
    if first is None or math.isnan(first.input_mean) or any(a.order < first.order for a in snapshot.activations):
        return None
    return first


def _criteria(layer: WeightedRecord | None) -> Iterator[Criterion]:
    if layer is not None:
        size = _size(layer)
        yield Criterion("root mean square", size, ">", LIMITS.large)
        if size > 0:
            yield Criterion("root mean square", size, "<", LIMITS.small)
        yield Criterion("mean over std of a feature, median", _offset(layer), ">", LIMITS.offset)


def _size(layer: WeightedRecord) -> float:
    """Root mean square over features: E x^2 = var / (1 - mean energy) where x varies at all."""
    if layer.sums is not None and layer.sums.input is not None:
        moments = layer.sums.input
        return float(np.sqrt(np.mean(np.square(moments.mean, dtype=np.float64) + moments.variance)))
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
