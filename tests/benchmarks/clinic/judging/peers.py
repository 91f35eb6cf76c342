"""The rules of four other tools, restated with their published thresholds, on what our snapshots measure.

Each is a function from a run to the problems it raises, in our names where theirs have one, the first raised first.
Where a measure of theirs is not in a snapshot, the nearest one is taken, so that the peer is rather helped than
hindered. Rules of theirs that alarm on nearly every healthy run are left out: SageMaker's LossNotDecreasing and Overfit
on single batches, TheDeepChecker's "activation std outside [0.5, 2]" and its initialisation test against a single
scheme.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from scipy.stats import norm

from lightning_tricks.probes import ActivationRecord, ParameterRecord, Snapshot

from ..data import REGRESSIONS
from ..train import Run

Peer = Callable[[Run], list[str]]
RECTIFIERS = ("relu", "relu6")


def deep_checker(run: Run) -> list[str]:
    """TheDeepChecker: Ben Braiek and Khomh, "Testing Feedforward Neural Networks Training Programs", TOSEM 2023.

    Thresholds of its checkers: initial loss off ln C by its own size; features neither standardized nor in [0, 1];
    constant initial weights; over half of the units with a 95th percentile of abs(x) under 1e-5 (dead); log10 of
    the update ratio, averaged, outside [-4, -1], or no update; gradient of a weight halved or doubled at four looks
    in a row, or its mean outside [1e-8, 1e8]; NaN or Inf. It looks at every 10th iteration, we at our looks. Left
    out, as our records hold no signs and no share of small weights: over 95 % of a layer's weights under 1e-5, or
    negative.
    """
    found: list[str] = []
    first = run.snapshots[0]
    for loss in first.losses:
        if loss.chance > 0 and abs(loss.value - loss.chance) >= loss.chance:
            found.append("output_mismatch")
    reader = next((r for r in first.weighted if r.input_std >= 0), None)
    if reader is not None and not _normalized(reader.input_mean, reader.input_std):
        found.append("unnormalized_input")
    if any(r.symmetric and r.layer for r in first.parameters):
        found.append("symmetric_weights")
    for snapshot in run.snapshots:
        if snapshot.suspicious:
            found.append("non_finite")
            break
        if any(r.function in RECTIFIERS and r.activity < 0.05 and r.dead_share > 0.5 for r in snapshot.activations):
            found.append("dead_units")
        if any(r.function in ("tanh", "sigmoid") and r.saturation > 0.85 for r in snapshot.activations):
            found.append("saturation")
    weights = [_course(run, name) for name in _weights(first)]
    for course in weights:
        ratios = [math.log10(r.update_ratio) for r in course if r.update_ratio > 0]
        untouched = [r for r in course if r.trainable and r.update == 0.0]
        if len(untouched) == len(course) and course:
            found.append("disconnected_parameters")
        elif ratios and np.mean(ratios) > -1.0:
            found.append("learning_rate_too_high")
        elif ratios and np.mean(ratios) < -4.0:
            found.append("learning_rate_too_low")
        gradients = np.array([r.gradient for r in course if r.gradient >= 0])
        if (gradients < 1e-8).any() or _in_a_row(gradients, lambda one, next_: next_ <= 0.5 * one):
            found.append("vanishing_gradient")
        if (gradients > 1e8).any() or _in_a_row(gradients, lambda one, next_: next_ >= 2.0 * one):
            found.append("exploding_gradient")
    return list(dict.fromkeys(found))


def deep_diagnosis(run: Run) -> list[str]:
    """DeepDiagnosis: Wardat, Cruz, Le and Rajan, ICSE 2022, thresholds of its callbacks.py.

    70 % of a ReLU layer's outputs not positive at the end (dead node); over half of abs(a) above 5 for tanh and sigmoid
    (saturation; our histogram is cut at 4); mean abs gradient under 1e-7 (vanishing); NaN, Inf or a mean of exactly 0
    (numerical); a rectifier before a cross-entropy, or outputs ten times wider than targets (out of range); the loss
    exactly unchanged over five epochs.
    """
    found: list[str] = []
    last, first = _last_finite(run), run.snapshots[0]
    for loss in first.losses:
        wide = loss.input_max - loss.input_min > 10.0 * (loss.target_max - loss.target_min)
        rectified = any(r.name == loss.activation and r.function in RECTIFIERS for r in first.activations)
        if (loss.function == "mse_loss" and wide) or (loss.function == "cross_entropy" and rectified):
            found.append("output_mismatch")
    if any(snapshot.suspicious for snapshot in run.snapshots):
        found.append("non_finite")
    if any(r.function in RECTIFIERS and r.activity <= 0.3 for r in last.activations):
        found.append("dead_units")
    if any(r.function in ("tanh", "sigmoid") and _tails(r) > 0.5 for s in run.snapshots for r in s.activations):
        found.append("saturation")
    gradients = [r.gradient for s in run.snapshots for r in s.parameters if r.layer and r.gradient >= 0]
    if any(gradient < 1e-7 for gradient in gradients):
        found.append("vanishing_gradient")
    epochs = [loss for _, loss, _ in run.validation[-5:]]
    if len(epochs) == 5 and max(epochs) == min(epochs):
        found.append("learning_rate_too_low")
    return found


def sagemaker(run: Run) -> list[str]:
    """Amazon SageMaker Debugger, default parameters (AWS documentation, "List of Debugger built-in rules").

    VanishingGradient: mean abs gradient under 1e-7; ExplodingTensor: NaN or Inf; DeadRelu: over 50 % of the units
    active on under 1 % of the patterns; SaturatedActivation: over 50 % of the units within (-9.4999, 9.4999) for tanh,
    (-23, 16.99999) for sigmoid on under 1 % of the patterns (by a Gaussian of the unit's moments); WeightUpdateRatio
    outside [1e-8, 10]; PoorWeightInitialization: variance of the ReLU inputs differs by more than 10 between layers at
    the start, and the loss does not fall within its patience of 5 steps (the documentation names both; the first alone
    alarms on torch's default).
    """
    found: list[str] = []
    variances = [r.std**2 for r in run.snapshots[0].activations if r.function in RECTIFIERS and r.std >= 0]
    stuck = len(run.losses) > 5 and not min(run.losses[1:6]) < run.losses[0]
    if len(variances) > 1 and max(variances) > 10.0 * min(variances) and stuck:
        found.append("poor_initialization")
    for snapshot in run.snapshots:
        if snapshot.suspicious:
            found.append("non_finite")
            break
        if any(r.function in RECTIFIERS and r.dead_share > 0.5 for r in snapshot.activations):
            found.append("dead_units")
        if any(_saturated_units(r) > 0.5 for r in snapshot.activations):
            found.append("saturation")
        weights = [r for r in snapshot.parameters if r.layer]
        if any(r.gradient < 1e-7 for r in weights):
            found.append("vanishing_gradient")
        if any(r.update_ratio > 10.0 for r in weights):
            found.append("learning_rate_too_high")
        if any(r.update_ratio < 1e-8 for r in weights if r.trainable):
            found.append("learning_rate_too_low")
    return list(dict.fromkeys(found))


def autotrainer(run: Run) -> list[str]:
    """AUTOTRAINER: Zhang et al., ICSE 2021, table 2 and the defaults of its monitor.py.

    Its gate first: accuracy under 0.7, or no rise by 0.01, after 30 % of the training (a regression
    has no accuracy and is left alone). Then: norm of the first weight's gradient over the last's under 1e-3 with the
    first under 1e-4 (vanishing), over 70 or NaN (exploding), 70 % of gradient entries zero (dying ReLU; the share of
    weights into dead units is taken), else slow convergence; accuracy oscillating by 0.03 in a fifth of the epochs
    (oscillating loss).
    """
    if any(s.suspicious for s in run.snapshots) or any(not math.isfinite(loss) for _, loss, _ in run.validation):
        return ["exploding_gradient"]
    if run.case.data in REGRESSIONS:
        return []
    accuracies = [0.0, *(accuracy for _, _, accuracy in run.validation)]  # before the training
    judged = range(max(1, math.ceil(0.3 * len(accuracies))), len(accuracies) + 1)
    rises = [b - a for a, b in pairwise(accuracies)]
    gate = any(max(accuracies[:k]) < 0.7 or max(rises[: k - 1], default=1.0) < 0.01 for k in judged)
    if not gate:
        turns = [
            abs(b - a)
            for a, b, c in zip(accuracies, accuracies[1:], accuracies[2:], strict=False)
            if (b - a) * (c - b) < 0 and abs(b - a) >= 0.03
        ]
        return ["learning_rate_too_high"] if len(turns) >= 0.2 * len(accuracies) and turns else []
    for snapshot in run.snapshots:
        kernels = [r for r in snapshot.parameters if r.layer and r.gradient >= 0 and len(r.shape) > 1]
        if not kernels:
            continue
        norms = [r.gradient * math.sqrt(math.prod(r.shape)) for r in kernels]
        dead = [r.dead_share for r in snapshot.activations if r.dead_share >= 0]
        if dead and float(np.mean(dead)) >= 0.7:
            return ["dead_units"]
        if norms[0] > 70.0 * norms[-1]:
            return ["exploding_gradient"]
        if norms[0] < 1e-3 * norms[-1] and norms[0] < 1e-4:
            return ["vanishing_gradient"]
    return ["learning_rate_too_low"]


PEERS: dict[str, Peer] = {
    "TheDeepChecker": deep_checker,
    "DeepDiagnosis": deep_diagnosis,
    "SageMaker Debugger": sagemaker,
    "AUTOTRAINER": autotrainer,
}


def _normalized(mean: float, std: float) -> bool:
    """About mean 0 and std 1, or about [0, 1]."""
    return (abs(mean) < 0.2 and 0.5 < std < 2.0) or (0.0 <= mean <= 1.0 and 0.1 < std < 0.5)


def _weights(snapshot: Snapshot) -> list[str]:
    return [r.name for r in snapshot.parameters if r.layer and len(r.shape) > 1]


def _course(run: Run, name: str) -> list[ParameterRecord]:
    return [r for snapshot in run.snapshots for r in snapshot.parameters if r.name == name and not r.nonfinite]


def _in_a_row(values: np.ndarray, holds: Callable[[float, float], bool]) -> bool:
    run = 0
    for one, next_ in pairwise(values):
        run = run + 1 if holds(one, next_) else 0
        if run >= 4:
            return True
    return False


def _last_finite(run: Run) -> Snapshot:
    finite = [snapshot for snapshot in run.snapshots if not snapshot.suspicious]
    return (finite or list(run.snapshots))[-1]


def _tails(record: ActivationRecord) -> float:
    return record.histogram[0] + record.histogram[-1] if record.histogram else 0.0


def _saturated_units(record: ActivationRecord) -> float:
    """Share of units that are within the limits on under 1 % of their patterns."""
    limits = {"tanh": (-9.4999, 9.4999), "sigmoid": (-23.0, 16.99999)}
    if record.function not in limits or record.sums is None:
        return 0.0
    low, high = limits[record.function]
    moments = record.sums.joint.preactivation
    mean, std = np.asarray(moments.mean, float), np.maximum(np.sqrt(np.asarray(moments.variance, float)), 1e-12)
    within = norm.cdf((high - mean) / std) - norm.cdf((low - mean) / std)
    return float(np.mean(within < 0.01))


def raised(run: Run) -> Iterator[tuple[str, list[str]]]:
    """Every peer with what it raises."""
    with np.errstate(all="ignore"):
        for name, peer in PEERS.items():
            yield name, peer(run) if run.snapshots else []
