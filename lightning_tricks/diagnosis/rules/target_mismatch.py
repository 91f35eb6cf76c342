"""target_mismatch: the targets are not what the loss is made for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Trait
from lightning_tricks.diagnosis.history.loss_calls import LossCalls, loss_calls
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.diagnosis.rules.batch_mixing import preflight
from lightning_tricks.probes import LossRecord, Snapshot

PROBLEM = "target_mismatch"
_BINARY = ("binary_cross_entropy", "binary_cross_entropy_with_logits", "multilabel_soft_margin_loss")
_SIGNED = ("soft_margin_loss", "hinge_embedding_loss")


@thresholds
class LIMITS:
    outside: float = 0.5  # from [0, 1]: halfway to the next label; noisy labels of GANs go from -.3 to 1.2
    several: float = 0.3  # share of the rows that name several classes
    patterns: int = 64  # that all have the same target
    shifted: float = 2.0  # positions: a language model predicts the next one


@rule(
    PROBLEM,
    "code",
    "output_mismatch exploding_gradient learning_rate_too_high learning_rate_too_low saturation vanishing_gradient "
    "linearity non_finite overfitting dead_units",
    "targets do not fit the loss",
    clause="the targets do not fit the loss",
    clauses={
        Trait.WRONG_LABELS: "some of the targets are wrong",
        Trait.LEFT_BEHIND: "targets do not move with their images",
    },
    order=9,
    reads="thinned",
    table=(15, "the line to change"),
    needs="losses",
)
def find_target_mismatch(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Binary targets outside of [0, 1], several classes a row under cross-entropy, tokens shifted by two and more."""
    every = loss_calls(history)
    for calls in every:
        found = out_of_range(calls) or zero_for_minus_one(calls) or several_classes(calls) or shifted(calls, every)
        if found is not None:
            evidence = {"loss function": calls.latest.function, **found.evidence}
            yield Finding(**{**vars(found), "evidence": evidence})
    if len(every) == 1 and all_the_same(history, every[0]):
        yield _one_target(every[0])


def all_the_same(history: Sequence[Snapshot], calls: LossCalls) -> bool:
    """Whether the data bring one and the same target for every pattern of every look."""
    _, asked = preflight(history)
    if asked is None or not asked.same_target or len(calls.records) < HYSTERESIS:
        return False  # before the records of all looks are read
    low, high = calls.target_range
    return low == high and calls.pooled.patterns >= LIMITS.patterns


def _one_target(calls: LossCalls) -> Finding:
    value, patterns = calls.target_range[0], calls.pooled.patterns
    explanation = (
        f"All {patterns} targets that came in are {value:.4g}. One constant output has the best loss there is, and "
        "that is what is learned, whatever the input."
    )
    text = "look where the targets are made: a cast to integers of values in [0, 1], a filter, an index that stands"
    why = Criterion("targets that are the same", patterns, ">=", LIMITS.patterns)
    evidence, todo = (
        {"loss function": calls.latest.function, "target": value, "patterns": patterns},
        [Remedy("check_targets", text)],
    )
    return calls.all().finding(PROBLEM, calls.latest.weighted, "warning", evidence, explanation, todo, [why])


def out_of_range(calls: LossCalls) -> Finding | None:
    """Targets of a loss that takes them for probabilities."""
    found = calls.persistence(_outside) if calls.latest.function in _BINARY else None
    if found is None:
        return None
    low, high = calls.target_range
    distance = max(high - 1.0, -low)
    explanation = (
        f"{calls.latest.function} takes its targets for probabilities, and they go from {low:.3g} to {high:.3g}. "
        "Its loss then has no lower bound: outputs grow without end in the direction that such targets ask for."
    )
    why = Criterion("distance of the targets from [0, 1]", distance, ">", LIMITS.outside)
    evidence, todo = {"smallest and largest target": f"{low:.3g}, {high:.3g}"}, [_into_range(low, high)]
    return found.finding(PROBLEM, calls.latest.weighted, "critical", evidence, explanation, todo, [why])


def zero_for_minus_one(calls: LossCalls) -> Finding | None:
    """Labels 0 and 1 for a loss that wants -1 and 1."""
    function = calls.latest.function
    if function not in _SIGNED or calls.target_range != (0.0, 1.0):
        return None
    explanation = (
        f"{function} wants labels of -1 and 1, and is given 0 and 1. "
        "A pattern with the label 0 does not tell it to which side it belongs."
    )
    why = Criterion("smallest target", 0.0, ">", -1.0)
    todo = [Remedy("change_targets", "make labels of -1 and 1 of them: target * 2 - 1")]
    evidence = {"smallest and largest target": "0, 1"}
    return calls.all().finding(PROBLEM, calls.latest.weighted, "critical", evidence, explanation, todo, [why])


def several_classes(calls: LossCalls) -> Finding | None:
    """Rows that name several classes, each with a whole 1, for a loss under which probabilities compete."""
    found = calls.persistence(_names_several)
    if found is None:
        return None
    share = calls.pooled.several_share
    explanation = (
        f"{share:.0%} of the target rows name several classes with a 1 each, and {calls.latest.function} wants "
        "probabilities that add up to 1: its softmax lets the classes of one pattern compete, and none of them can be "
        "sure."
    )
    todo = [
        Remedy("change_loss", "several labels a pattern: F.binary_cross_entropy_with_logits, nn.BCEWithLogitsLoss"),
        Remedy("change_targets", "or shares of one label: target / target.sum(1, keepdim=True)"),
    ]
    why = Criterion("share of rows that name several classes", share, ">", LIMITS.several)
    return found.finding(PROBLEM, calls.latest.weighted, "critical", {why.name: share}, explanation, todo, [why])


def shifted(calls: LossCalls, every: Sequence[LossCalls]) -> Finding | None:
    """The token wanted is not the next one; heads for several tokens ahead have one for the next."""
    if any(record.shift == 1.0 for each in every for record in each.records):
        return None
    found = calls.persistence(lambda record: record.shift >= LIMITS.shifted)
    if found is None:
        return None
    shift = int(calls.latest.shift)
    explanation = (
        f"The targets are the tokens that stand {shift} positions later in the input, so the next token is never "
        "learned. That is so where the data are shifted by one and the model, or the loss, shifts them once more."
    )
    todo = [Remedy("change_targets", "shift once only: logits[:, :-1] against tokens[:, 1:], or tokens moved already")]
    why = Criterion("positions between token and target", shift, ">=", LIMITS.shifted)
    return found.finding(PROBLEM, calls.latest.weighted, found.severity(), {why.name: shift}, explanation, todo, [why])


def _outside(record: LossRecord) -> bool:
    return record.target_min < -LIMITS.outside or record.target_max > 1.0 + LIMITS.outside


def _names_several(record: LossRecord) -> bool:
    return record.several_share > LIMITS.several and record.target_min >= 0.0


def _into_range(low: float, high: float) -> Remedy:
    if (low, high) == (1.0, 2.0):
        return Remedy("change_targets", "labels 1 and 2 become 0 and 1: target - 1")
    if (low, high) == (-1.0, 1.0):
        return Remedy("change_targets", "labels -1 and 1 become 0 and 1: (target + 1) / 2")
    if low >= 0.0:
        return Remedy("change_targets", f"bring them into [0, 1]: target / {high:g}; or cross_entropy for classes")
    return Remedy("change_targets", "bring the targets into [0, 1], or use F.mse_loss for values")
