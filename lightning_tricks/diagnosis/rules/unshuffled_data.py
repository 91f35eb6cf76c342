"""unshuffled_data: batches that come sorted by their targets, each with very few of the classes."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity, Trait
from lightning_tricks.diagnosis.history.constant_answer import entropy
from lightning_tricks.diagnosis.history.learning import (
    AT_A_GUESS,
    TOLD_AFTER,
    guess_of,
    guess_on_validation,
    later_losses,
    level,
)
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import LossRecord, Snapshot

SHUFFLE = Remedy("shuffle", "let every epoch draw the data anew: DataLoader(train_set, ..., shuffle=True)")


@thresholds
class LIMITS:
    # 1 - entropy of a batch's classes over that of a batch drawn at random: two of ten classes have .7, four .4.
    lacking: float = 0.6
    others: float = 5.0  # patterns of rarer classes in a random batch: it lacks them all once in exp(5) = 150
    # Variance of a batch's targets over that of all, where they are no classes: shuffled batches of 32 have .6 to 1.3.
    within: float = 0.1
    successive: float = 0.6  # distance of the means of successive batches over that of any two: sorted 0, random 1
    looks: int = 5  # at which the targets were seen
    patterns: int = 8  # a batch of fewer may lack a class by chance
    # Share of the later steps with a loss over that of a guess: of 18 trainings on sorted digits those that ended below
    # .8 of accuracy had .09 and more, those above .95 under .01 but for one of .077; shuffled ones that learned none.
    jumps: float = 0.03
    # Validation loss over that of a guess, with the training's under half of it: of sorted digits and numbers those
    # that ended within .1 of their shuffled twin had .19 and less, the others .39 and more.
    validation: float = 0.5


@dataclass(frozen=True)
class _Look:
    """The targets of one step: how many, of which classes (if they are any), their mean and std."""

    step: int
    patterns: int
    counts: np.ndarray
    mean: np.ndarray
    std: float


@rule(
    "unshuffled_data",
    "code",
    "dead_units saturation vanishing_gradient linearity bias_shift learning_rate_too_high overfitting",
    "data not shuffled",
    [SHUFFLE],
    clause="the batches come sorted",
    order=11,
    reads="thinned",
    table=(17, "shuffle=True"),
    needs="losses",
)
def find_unshuffled_data(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Every batch holds one class or very few of them, and the next one the same.

    What units and gradients show then comes of that: each class in turn drives the whole network to itself. Streams in
    the order of time come so by right: it is information until the loss is known to stand at that of a guess, to leap
    over it wherever the class changes, or to be far higher on validation, which has all classes.
    """
    for looks in _targets(history):
        if len(looks) < LIMITS.looks:
            continue
        alone = _one_class_so_far(history, looks)
        first = _alike(looks) if alone is None else alone
        why = [first, _successive(looks)] if alone is None and first.holds else [first]
        if all(criterion.holds for criterion in why):
            yield _finding(history, looks, why, certain=alone is None)
            return


def _finding(history: Sequence[Snapshot], looks: Sequence[_Look], why: list[Criterion], certain: bool) -> Finding:
    harm, guess = _harm(history)
    later = later_losses(history)
    evidence: dict[str, float] = {
        "mean loss of the later half": float(later.mean()) if len(later) else math.nan,
        "loss of a guess": guess,
    }
    if looks[-1].counts.size:
        evidence["classes in a batch"] = statistics.median(int(np.count_nonzero(look.counts)) for look in looks)
        evidence["classes in all of them"] = int(np.count_nonzero(_all_counts(looks)))
        largest = statistics.median(float(look.counts.max() / look.counts.sum()) for look in looks)
        evidence["share of a batch's largest class"] = largest
    else:
        evidence["targets of a batch, std"] = statistics.median(look.std for look in looks)
        evidence["targets of all, std"] = _pooled_std(looks)
    explanation = (
        "The targets of a batch are nearly all the same, and those of the next batch are the same again: the data "
        "come sorted. The network learns each class in turn and forgets the others; that its units die or its loss "
        "leaps comes of that."
    )
    severity: Severity = "warning" if harm is not None and certain else "info"
    return Finding(
        *("unshuffled_data", None, severity, looks[0].step, evidence, explanation),
        traits=frozenset({Trait.EXCUSES} if certain else ()),
        decided_by=(*why, *([harm] if harm is not None and certain else [])),
    )


def _harm(history: Sequence[Snapshot]) -> tuple[Criterion | None, float]:
    """That the loss stands at that of a guess, leaps over it or is high on validation; and the loss of a guess."""
    guess, now = guess_of(history), level(history)
    if now is None or math.isnan(guess):
        return None, guess
    stands = Criterion("loss over that of a guess", now.share, ">=", AT_A_GUESS)
    over = float((later_losses(history) > guess).mean())
    leaps = Criterion("share of the steps over a guess", over, ">", LIMITS.jumps)
    unseen = history[-1].validation_loss / guess_on_validation(history, guess)
    forgets = Criterion("validation loss over that of a guess", unseen, ">", LIMITS.validation)
    harms = (leaps, *([forgets] if 2.0 * now.share < unseen else []))
    told = next((each for each in harms if each.holds), None) if now.told else None
    return (stands if now.at_a_guess else told), guess


def _targets(history: Sequence[Snapshot]) -> list[list[_Look]]:
    """Of each kind of target, what was seen of it step by step; calls over the same classes are taken together."""
    found: dict[object, list[_Look]] = {}
    for snapshot in history:
        for kind, look in _by_kind(snapshot).items():
            found.setdefault(kind, []).append(look)
    return [[look for look in looks if look.patterns >= LIMITS.patterns] for looks in found.values()]


@remembered
def _by_kind(snapshot: Snapshot) -> dict[object, _Look]:
    kinds: dict[object, list[LossRecord]] = {}
    for record in snapshot.losses:
        classes = len(_counts(record))
        kinds.setdefault(classes or (record.name, record.function), []).append(record)
    return {kind: _look(snapshot.step, records) for kind, records in kinds.items()}


def _look(step: int, records: Sequence[LossRecord]) -> _Look:
    last = records[-1]
    counts = np.array([_counts(record) for record in records], np.float64).sum(0)
    if not counts.any():
        means = np.array(last.target_means or (last.target_mean,))
        within = max(last.target_std**2 - float(means.var()), 0.0)  # outputs differ from each other by nature
        return _Look(step, last.patterns, np.zeros(0), means, math.sqrt(within))
    numbers = np.arange(len(counts))
    mean = np.average(numbers, weights=counts)
    std = math.sqrt(np.average((numbers - mean) ** 2, weights=counts))
    return _Look(step, int(counts.sum()), counts, np.array([mean]), std)


def _counts(record: LossRecord) -> tuple[int, ...]:
    """How often each class is wanted; of several outputs that say yes or no each has a share of its own instead."""
    if record.class_counts:
        return record.class_counts
    several = len(record.target_means) > 0 and len(record.wanted) != record.outputs
    return () if several else record.wanted


def _alike(looks: Sequence[_Look]) -> Criterion:
    """How few classes a batch has, or how close its targets lie, in the median; NaN where that cannot be told."""
    if not looks[-1].counts.size:
        whole = _pooled_std(looks) ** 2
        share = statistics.median(look.std**2 for look in looks) / whole if whole > 0 else math.nan
        return Criterion("variance of a batch's targets over that of all", share, "<", LIMITS.within)
    lacking = statistics.median(_lacking(looks).tolist())
    return Criterion("1 - entropy of a batch's classes over that of a random one", lacking, ">", LIMITS.lacking)


def _lacking(looks: Sequence[_Look]) -> np.ndarray:
    """Of each look, of the entropy that a batch drawn at random has: that of all less (classes - 1) / 2n."""
    pooled = _all_counts(looks)
    shares, sizes = pooled / pooled.sum(), np.array([look.patterns for look in looks], np.float64)
    counts = np.array([look.counts if look.counts.size else np.zeros_like(pooled) for look in looks])
    drawn = entropy(shares) - (np.count_nonzero(shares) - 1) / (2.0 * sizes)
    told = counts.any(1) & (drawn > 0) & ((1.0 - shares.max()) * sizes >= LIMITS.others)
    return 1.0 - np.divide(entropy(counts / sizes[:, None]), drawn, out=np.ones_like(drawn), where=told)


def _successive(looks: Sequence[_Look]) -> Criterion:
    """How far the mean targets of batches in a row are apart, over the mean of all pairs; NaN where none were seen."""
    near = [_distance(one, other) for one, other in itertools.pairwise(looks) if other.step == one.step + 1]
    apart = [_distance(one, other) for one, other in itertools.combinations(looks, 2)]
    known = len(near) >= HYSTERESIS - 1 and sum(apart) > 0
    ratio = statistics.fmean(near) / statistics.fmean(apart) if known else math.nan
    return Criterion("distance of successive batches over that of any two", ratio, "<", LIMITS.successive)


def _all_counts(looks: Sequence[_Look]) -> np.ndarray:
    whole: np.ndarray = np.array([look.counts for look in looks if look.counts.size], np.float64)
    return whole.sum(0) if whole.size else np.zeros(0)


def _distance(one: _Look, other: _Look) -> float:
    return float(np.abs(one.mean - other.mean).sum()) if one.mean.shape == other.mean.shape else math.nan


def _pooled_std(looks: Sequence[_Look]) -> float:
    """Of the targets of all looks together."""
    sizes, means = [look.patterns for look in looks], np.array([look.mean for look in looks])
    centre = np.average(means, 0, weights=sizes)
    squares = [look.std**2 + float(((look.mean - centre) ** 2).mean()) for look in looks]
    return math.sqrt(float(np.average(squares, weights=sizes)))


def _one_class_so_far(history: Sequence[Snapshot], looks: Sequence[_Look]) -> Criterion | None:
    """One of several classes is all that came in the first part of the first epoch: it is too early to be sure.

    Where every target is one class by right, as where the right answer always comes first, no epoch brings another. Of
    two classes one may be rare.
    """
    counts = _all_counts(looks)
    begun = history[-1].step - history[0].step < TOLD_AFTER and not history[-1].epoch - history[0].epoch >= 1.0
    if counts.size < 3 or np.count_nonzero(counts) != 1 or not begun:
        return None
    return Criterion("classes that came in all batches so far", 1.0, "<", 2.0)
