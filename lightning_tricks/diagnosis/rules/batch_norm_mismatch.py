"""batch_norm_mismatch: a network that is evaluated by other statistics than it was trained with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Finding, Remedy, Severity
from lightning_tricks.diagnosis.history.persistence import RECOVERY, Course, course
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.loss_and_norm import NormalizationRecord

# Samples in a batch. The variance of 4 is off by sqrt(2 / (n - 1)) = 82 % of itself; positions of one image are alike
# and help little: ResNet-50 loses 3.7 points of ImageNet with 4 images and 11 with 2 (Wu & He 2018, table 2).
TINY = 4
PAIR = 2  # with two, the outputs of a unit are -1 and 1 whatever comes in
# Statistics that follow: in 54 healthy trainings the variances stayed within a factor of 1.6, noise included, and far
# closer at any learning rate; those of the start, with a momentum of 0.001, are off by a factor of 2 to 8.
VARIANCE_GAP = math.log(1.6)
MOST = 0.7  # mean over root mean square: sqrt(f) where a share f of the channels is off; rare features alone are not
FROZEN = 3.0  # times that where they are frozen: other data may be a little different
FOLLOWED = 3.0  # times 1 / momentum: then 95 % of the running statistics are measured ones
PATIENCE = 1000  # steps; statistics that need more are still those of the start in many a whole training
DROPPED = 0.3  # p of a dropout in front: the variance in training is at least 1.43 times that in evaluation


def find_batch_norm_mismatch(history: Sequence[Snapshot]) -> list[Finding]:
    """What is wrong with the statistics, at the first layer where it is; and biases that batch norm takes away."""
    found = [_tiny_batches(history), _frozen(history), _behind_dropout(history), _useless_bias(history)]
    if found[0] is None:  # else the statistics are mere noise
        found.insert(1, _stale(history))
    return [finding for finding in found if finding is not None]


def _tiny_batches(history: Sequence[Snapshot]) -> Finding | None:
    """Batch statistics over so few samples that they are noise, on most looks: a last, partial batch is no fault."""
    for layer in _layers(history[-1]):
        looks = [(look, r.samples) for look in history for r in _calls(look, layer.name) if r.training]
        few = [(look, size) for look, size in looks if size <= TINY]
        if 2 * len(few) <= len(looks) or not layer.training or layer.samples > TINY:
            continue
        typical = sorted(size for _, size in few)[len(few) // 2]
        noise = math.sqrt(2.0 / max(typical - 1, 1))
        evidence = {
            "batch size": typical,
            "patterns per channel": layer.patterns,
            "relative noise of the variance": noise,
            "share of the looks": len(few) / len(looks),
        }
        explanation = (
            f"Mean and variance are taken over a batch of {typical}, and the variance of so few is off by up to "
            f"{noise:.0%} of itself. Each pattern is shifted by its neighbours in the batch at random, and evaluation, "
            "by running statistics, meets another network than training did."
        )
        severity = Course(few[0][0].step, len(few), few[-1][0]).severity(critical=layer.patterns <= PAIR)
        todo = (remedies.GROUP_NORM, remedies.LARGER_BATCH, remedies.BATCH_RENORM)
        return _finding(layer.name, severity, few[0][0].step, evidence, explanation, todo)
    return None


def _stale(history: Sequence[Snapshot]) -> Finding | None:
    """Running statistics far from the measured ones although they had time to follow, or where they hardly can."""
    latest = history[-1]
    for layer in _layers(latest):
        if not layer.training or not _far(layer) or _called_twice(latest, layer.name):
            continue  # of a layer that is called more than once (real and generated) they are a mixture
        momenta = {record.momentum for look in history for record in _calls(look, layer.name) if record.training}
        if len(momenta) > 1 or not layer.momentum > 0:
            continue  # an average over all steps so far lags behind by its nature
        needed, waited = FOLLOWED / layer.momentum, latest.step - history[0].step
        slow = waited < needed
        if slow and (needed <= PATIENCE or waited < RECOVERY):
            continue
        ready = history[0].step + (0 if slow else math.ceil(needed))
        found = course(history, _far_from(layer.name, ready))
        if found is None:
            continue
        evidence = {**_gap(layer), "momentum": layer.momentum, "steps they need to follow": needed}
        if slow:
            explanation = (
                f"With a momentum of {layer.momentum:.2g} the running statistics need {needed:.0f} steps to follow and "
                f"are still near those of the start: {_gap_in_words(layer)}. Until then the network evaluates as if it "
                "were untrained."
            )
            todo: tuple[Remedy, ...] = (remedies.MOMENTUM, remedies.POPULATION)
        else:
            explanation = (
                f"The running statistics had time to follow and do not fit: {_gap_in_words(layer)}. Evaluation uses "
                "them, so it sees another network than training does."
            )
            todo = (remedies.POPULATION, remedies.MOMENTUM, remedies.LOWER_LR)
        return _finding(layer.name, found.severity(critical=False), found.since, evidence, explanation, todo)
    return None


def _frozen(history: Sequence[Snapshot]) -> Finding | None:
    """Layers in eval mode whose statistics do not fit: the first that was left behind together with the worst.

    Frozen statistics that fitted when the training began are as they should be in fine-tuning, wherever the weights go
    from there: training and evaluation use the same ones. Those that were learned first and then left behind were not
    meant to stay.
    """
    left: dict[int, list[NormalizationRecord]] = {}
    for layer in _layers(history[-1]):
        looks = [(look, record) for look in history for record in _calls(look, layer.name)]
        still = next((at for at in range(len(looks)) if all(not r.training for _, r in looks[at:])), None)
        if still is not None:
            left.setdefault(looks[still][0].step, []).append(looks[0][1] if still == 0 else layer)
    for since, layers in sorted(left.items()):
        far = [record for record in layers if _far(record, FROZEN)]
        if not far:
            continue
        evidence = {
            "layers in eval mode": len(layers),
            "of them with statistics that do not fit": len(far),
            "the first of these": far[0].name,
            **_gap(far[0]),
        }
        explanation = (
            f"{len(layers)} batch norm layers are in eval mode, and the statistics they normalise by do not fit: at "
            f"{far[0].name} {_gap_in_words(far[0])}. So they do not normalise while the weights train, and their "
            "statistics never learn."
        )
        run = sum(look.step >= since for look in history)
        todo = (remedies.TRAIN_MODE, remedies.POPULATION)
        severity = Course(since, run, history[-1]).severity(critical=False)
        return _finding(layers[0].name, severity, since, evidence, explanation, todo)
    return None


def _behind_dropout(history: Sequence[Snapshot]) -> Finding | None:
    """Dropout right before batch norm: the variance differs between training and evaluation."""
    for layer in _layers(history[-1]):
        found = course(history, lambda look, name=layer.name: any(map(_dropped, _calls(look, name))))  # type: ignore[misc]
        if found is None:
            continue
        shift = 1.0 / (1.0 - layer.dropout) if layer.dropout < 1.0 else math.inf
        evidence = {"dropout before it": layer.dropout, "training over evaluation variance, at least": shift}
        explanation = (
            f"Dropout with p = {layer.dropout:g} right before batch norm makes the variance in training at least "
            f"{shift:.2f} times that in evaluation, where nothing is dropped. The running variance is the training's, "
            "so in evaluation every output comes out too small."
        )
        todo = (remedies.DROPOUT_LAST, remedies.LESS_DROPOUT)
        return _finding(layer.name, found.severity(critical=False), found.since, evidence, explanation, todo)
    return None


def _useless_bias(history: Sequence[Snapshot]) -> Finding | None:
    """Biases whose effect the mean of the batch takes away again: information, never more."""
    latest = history[-1]
    layers = [r.follows for r in latest.normalizations if r.training and r.follows_bias and r.follows is not None]
    if not layers:
        return None
    evidence = {"layers": ", ".join(dict.fromkeys(layers)), "number of layers": len(set(layers))}
    explanation = (
        "These layers add a bias right before batch norm, which subtracts the mean and the bias with it. "
        "Such a bias does no harm and no good: batch norm has a shift of its own."
    )
    todo = (remedies.NO_BIAS,)
    return _finding(layers[0], "info", history[0].step, evidence, explanation, todo)


def _finding(
    layer: str,
    severity: Severity,
    since: int,
    evidence: Mapping[str, Any],
    explanation: str,
    todo: tuple[Remedy, ...],
) -> Finding:
    return Finding("batch_norm_mismatch", layer, severity, since, evidence, explanation, todo)


def _layers(look: Snapshot) -> list[NormalizationRecord]:
    return sorted(look.normalizations, key=lambda record: record.order)


def _calls(look: Snapshot, name: str) -> list[NormalizationRecord]:
    return [record for record in look.normalizations if record.name == name]


def _called_twice(look: Snapshot, name: str) -> bool:
    """Whether the module runs more than once a step: its k-th call is named ``name_k``."""
    names = {record.name for record in look.normalizations}
    return f"{name}_2" in names or name.rpartition("_")[0] in names


def _far_from(name: str, ready: int) -> Callable[[Snapshot], bool]:
    return lambda look: look.step >= ready and any(record.training and _far(record) for record in _calls(look, name))


def _far(record: NormalizationRecord, times: float = 1.0) -> bool:
    """Beyond what the noise of the batch itself explains, and in most channels.

    By the variances: a mean is measured in running standard deviations, of which a constant feature has none.
    """
    noise = math.sqrt(2.0 / max(record.patterns - 1, 1))
    gap = abs(math.log(record.variance_ratio)) if record.variance_ratio > 0 else math.nan
    return gap > times * VARIANCE_GAP + noise and gap > MOST * record.log_variance_gap


def _gap(record: NormalizationRecord) -> dict[str, Any]:
    return {
        "mean, measured from running, in std": record.mean_gap,
        "variance, measured over running": record.variance_ratio,
    }


def _gap_in_words(record: NormalizationRecord) -> str:
    return (
        f"measured means are {record.mean_gap:.2g} standard deviations from the running ones, variances "
        f"{record.variance_ratio:.2g} times as large"
    )


def _dropped(record: NormalizationRecord) -> bool:
    return record.training and record.dropout >= DROPPED
