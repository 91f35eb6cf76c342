"""class_imbalance: one class for every pattern, as it is so frequent; class weights that push the frequent class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity, Trait
from lightning_tricks.diagnosis.history.constant_answer import ConstantAnswer, best_constant, entropy
from lightning_tricks.diagnosis.history.learning import AT_A_GUESS, LITTLE, SURE, TOLD_AFTER, at_full_rate, had_its_time
from lightning_tricks.diagnosis.history.loss_calls import LossCalls, loss_calls
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS
from lightning_tricks.diagnosis.history.progress import first_validation, validations
from lightning_tricks.diagnosis.remedies import written
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import LossRecord, Snapshot

PROBLEM = "class_imbalance"
_LISTED = 10  # classes of which the weights are written out


@thresholds
class LIMITS:
    # Between the most frequent class and the others. Rank correlation of counts and weights is noise: weights of 1,
    # 1.2 and 1 had -.87.
    factor: float = 3.0
    answered: float = 0.05  # of the patterns of other classes, how many are answered as one of these
    equal: float = 1e-6  # variation of the outputs: where all are one, no class is to blame


@rule(
    PROBLEM,
    "learning rate",
    "collapsed_output dead_units saturation linearity vanishing_gradient not_learning",
    "class imbalance",
    clause="one class is answered for every input",
    follows_from="*",
    order=3,
    table=(17, "class weights, a balanced sampler"),
    reads="thinned",
    needs="losses",
)
def find_class_imbalance(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """One class is so frequent that it is answered for every input; class weights that push the frequent class."""
    for calls in loss_calls(history):
        constant = best_constant(calls.records)
        if constant is None:
            continue
        found = [
            _pushed(calls, constant),
            _one_answer(history, calls, constant),
            _mixture(history, calls, constant),
        ]
        known = sorted((each for each in found if each is not None), key=lambda each: -each.rank)
        if known:
            yield known[0]
            return


def _pushed(calls: LossCalls, constant: ConstantAnswer) -> Finding | None:
    """Weights that make the frequent class count for even more: of a mean of losses that is an exact statement."""
    counts, weights = constant.counts, constant.weights
    known = np.flatnonzero((counts > 0) & (weights > 0))  # a weight of 0 leaves a class out, as ignore_index does
    most, least = known[counts[known].argmax()], known[counts[known].argmin()]
    noise = SURE * math.sqrt(counts[most] + LIMITS.factor**2 * counts[least])
    why = (
        Criterion("counts, most over least frequent class", counts[most] / counts[least], ">", LIMITS.factor),
        Criterion("their weights, the same way round", weights[most] / weights[least], ">", LIMITS.factor),
    )
    if not all(each.holds for each in why) or counts[most] - LIMITS.factor * counts[least] <= noise:
        return None
    evidence = {
        "most frequent class": int(most),
        "its share": counts[most] / counts.sum(),
        "its weight": weights[most],
        "least frequent class": int(least),
        "the share of that": counts[least] / counts.sum(),
        "the weight of that": weights[least],
    }
    explanation = (
        f"Class {most} is {why[0].value:.3g} times as frequent as class {least} and weighs {why[1].value:.3g} times as "
        "much on top: the weights push what is frequent, and the rare class hardly counts. They should be one over the "
        "shares, not the shares."
    )
    severity: Severity = "warning" if len(calls.records) >= HYSTERESIS else "info"
    return Finding(
        *(PROBLEM, None, severity, calls.snapshots[0].step, evidence, explanation, (_weights(calls.latest, constant),)),
        traits=frozenset({Trait.IN_CODE}),
        decided_by=why,
    )


def _one_answer(history: Sequence[Snapshot], calls: LossCalls, constant: ConstantAnswer) -> Finding | None:
    """The frequent class for every pattern, at the loss that this answer has, after time enough for better."""
    steps = history[-1].step - history[0].step + 1
    if constant.imbalance < LIMITS.factor or steps < TOLD_AFTER or not had_its_time(history):
        return None
    middle = (history[0].step + history[-1].step) / 2
    later = sum(snapshot.step >= middle for snapshot in calls.snapshots)
    late = calls.records[-max(later, HYSTERESIS) :]
    if len(late) < HYSTERESIS or not at_full_rate(history) or late[-1].input_variation <= LIMITS.equal:
        return None
    share, least, now = _against(late, constant)
    why = [
        Criterion(
            "answers of other classes, over how often they are wanted", _rare(late, constant), "<", LIMITS.answered
        ),
        Criterion("loss over that of the best constant answer", share, ">=", AT_A_GUESS),
        Criterion("the same in the last looks", now, ">=", AT_A_GUESS),
    ]
    if not all(each.holds for each in why):
        return None
    sure = Criterion("the least it may be", least, ">=", 1.0 - LITTLE)
    severity: Severity = "warning" if sure.holds and len(calls.snapshots[-1].losses) == 1 else "info"
    evidence, name = _evidence(calls, constant, late), _name(calls.latest, constant.frequent)
    explanation = (
        f"{evidence['share of the frequent class']:.3g} of the targets are {name}, and the network answers {name} to "
        f"every input. That alone has a loss of {constant.loss:.4g}: a loss of {evidence['loss']:.4g} looks small and "
        "says nothing about the other classes, whose gradient is lost among so many of one kind."
    )
    return Finding(
        *(PROBLEM, None, severity, history[0].step, evidence, explanation, _remedies(calls.latest, constant)),
        decided_by=(*why, *([sure] if sure.holds else [])),
    )


def _mixture(history: Sequence[Snapshot], calls: LossCalls, constant: ConstantAnswer) -> Finding | None:
    """Where the classes are even on validation, no better there than the same answer for all: the frequent one is."""
    record = first_validation(history)
    lately = validations(history)[-HYSTERESIS:]
    if record is None or record.resampled or not record.whole or len(record.class_counts) != len(constant.counts):
        return None
    if constant.imbalance < LIMITS.factor or len(lately) < HYSTERESIS:
        return None
    if not had_its_time(history) or not at_full_rate(history):
        return None
    shares = np.array(record.class_counts) / sum(record.class_counts)
    guess, there = float(entropy(shares)), constant.loss_among(record.class_counts)
    losses = [history[index].validation_loss for index in lately]
    others = (1.0 - shares[constant.frequent]) / (1.0 - constant.shares[constant.frequent])
    why = (
        Criterion("share of the other classes on validation, over that in training", others, ">", LIMITS.factor),
        Criterion("lowest of the last validation losses, over a guess's there", min(losses) / guess, ">=", 1.0),
    )
    if not all(each.holds for each in why):
        return None
    name = _name(calls.latest, constant.frequent)
    evidence = {
        "frequent class": constant.frequent,
        "its share in training": float(constant.shares[constant.frequent]),
        "its share on validation": float(shares[constant.frequent]),
        "validation loss": losses[-1],
        "loss of a guess there": guess,
        "loss there of the training's shares": there,
    }
    explanation = (
        f"{evidence['its share in training']:.3g} of the training's targets are {name}, on validation "
        f"{evidence['its share on validation']:.3g}. There the loss is {losses[-1]:.3g}, where a guess has {guess:.3g} "
        f"and one that knows the training's shares only {there:.3g}: what is learned is how frequent the classes are."
    )
    return Finding(
        *(PROBLEM, None, "warning", history[0].step, evidence, explanation, _remedies(calls.latest, constant)),
        decided_by=why,
    )


def _against(late: Sequence[LossRecord], constant: ConstantAnswer) -> tuple[float, float, float]:
    """Losses over those of the constant answer on the same batches: the mean, the least it may be, and the last.

    It may be less by two standard errors, but no less than in any of the looks: a loss that still falls varies as well.
    """
    lost = np.array([record.value for record in late])
    same = np.array([constant.loss_on(record) for record in late])
    error = float((lost - same).std(ddof=1)) / math.sqrt(len(late)) / same.mean()
    last = slice(-HYSTERESIS, None)
    mean, now = float(lost.sum() / same.sum()), float(lost[last].sum() / same[last].sum())
    return mean, max(mean - SURE * error, float((lost / same).min())), now


def _rare(late: Sequence[LossRecord], constant: ConstantAnswer) -> float:
    wanted, answered = (np.sum([getattr(record, kind) for record in late], 0) for kind in ("wanted", "answered"))
    others = np.arange(len(wanted)) != constant.frequent
    return float(answered[others].sum() / max(wanted[others].sum(), 1))


def _evidence(calls: LossCalls, constant: ConstantAnswer, late: Sequence[LossRecord]) -> dict[str, Any]:
    counts, others = constant.counts, np.arange(len(constant.counts)) != constant.frequent
    wanted, right = (np.sum([getattr(record, kind) for record in late], 0)[others] for kind in ("wanted", "right"))
    return {
        "frequent class": constant.frequent,
        "share of the frequent class": float(counts[constant.frequent] / counts.sum()),
        "patterns of other classes": int(wanted.sum()),
        "of them answered rightly": int(right.sum()),
        "loss": float(np.mean([record.value for record in late])),
        "loss of the best constant answer": constant.loss,
    }


def _remedies(record: LossRecord, constant: ConstantAnswer) -> tuple[Remedy, ...]:
    dense = len(record.input_shape) > 2
    if _is_binary(record):
        odds = constant.counts[1] / constant.counts[0]
        metric = "BinaryF1Score()" if not dense else "BinaryJaccardIndex()"
        bias = f"nn.init.constant_({written(record.weighted or 'last_layer')}.bias, {math.log(odds):.2f})"
    else:
        metric = f"MulticlassRecall({len(constant.counts)}, average=None)"
        bias = "the log of the shares of the classes"
    return (
        _weights(record, constant),
        Remedy("change_loss", "a loss that one class cannot win: Dice or focal loss")
        if dense
        else Remedy("balance_batches", "draw the classes alike: WeightedRandomSampler(1 / counts[y], len(y))"),
        Remedy("initialize_bias", f"let the last layer begin with the shares: {bias}"),
        Remedy("change_metric", f"watch the rare classes, not the loss or the accuracy: torchmetrics' {metric}"),
    )


def _weights(record: LossRecord, constant: ConstantAnswer) -> Remedy:
    counts = constant.counts
    if _is_binary(record):
        ratio = counts[0] / counts[1]
        text = f"pos_weight=torch.tensor({ratio:.3g}) for F.binary_cross_entropy_with_logits, no over yes"
        root = f"; its root, {math.sqrt(ratio):.2g}, answers yes less often" if ratio > LIMITS.factor**2 else ""
        return Remedy("class_weights", text + root)
    if len(counts) > _LISTED:
        return Remedy("class_weights", "F.cross_entropy(..., weight=y.bincount().sum() / (classes * y.bincount()))")
    each = ", ".join(f"{counts.sum() / (len(counts) * max(count, 1.0)):.3g}" for count in counts)
    return Remedy("class_weights", f"F.cross_entropy(..., weight=torch.tensor([{each}])), one over the shares")


def _name(record: LossRecord, index: int) -> str:
    return ("0 (no)", "1 (yes)")[index] if _is_binary(record) else f"class {index}"


def _is_binary(record: LossRecord) -> bool:
    return record.function.startswith("binary_cross_entropy")
