"""unshuffled_data: batches that come sorted by their targets, each with very few of the classes."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity, Trait
from lightning_tricks.diagnosis.history import progress
from lightning_tricks.diagnosis.history.learning import level
from lightning_tricks.diagnosis.history.loss_calls import LossCalls, loss_calls
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import Snapshot

SHUFFLE = Remedy("shuffle", "let every epoch draw the data anew: DataLoader(train_set, ..., shuffle=True)")


@thresholds
class LIMITS:
    # Variance of a batch's targets over that of all: shuffled batches of 32 have .6 to 1.3, two random classes of ten
    # half of it, batches of data sorted by class .03 at most.
    within: float = 0.1
    successive: float = 0.6  # distance of the means of successive batches over that of any two: sorted 0, random 1
    looks: int = 5  # at which the targets were seen
    patterns: int = 8  # a batch of fewer may lack a class by chance


@rule(
    "unshuffled_data",
    "code",
    "dead_units saturation vanishing_gradient linearity bias_shift learning_rate_too_high overfitting",
    "data not shuffled",
    [SHUFFLE],
    clause="the batches come sorted",
    order=8,
    reads="thinned",
    table=(17, "shuffle=True"),
    needs="losses",
)
def find_unshuffled_data(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Every batch holds one class or very few of them, and the next one the same.

    What units and gradients show then comes of that: each class in turn drives the whole network to itself. Streams in
    the order of time come so by right: it is information until the loss is known to stand at that of a guess.
    """
    for calls in loss_calls(history):
        if len(calls.records) < LIMITS.looks:
            continue
        within, successive = _within(calls), _successive(calls)
        why = (
            Criterion("variance of a batch's targets over that of all", within, "<", LIMITS.within),
            Criterion("distance of successive batches over that of any two", successive, "<", LIMITS.successive),
        )
        if not all(criterion.holds for criterion in why):
            continue
        losses = progress.all_losses(history)
        evidence = {
            "targets of a batch, std": statistics.median(record.target_std for record in calls.records),
            "targets of all, std": calls.pooled.target_std,
            "mean loss of the later half": statistics.fmean(losses[len(losses) // 2 :] or [calls.latest.value]),
            "loss of a guess": progress.guess_loss(history[0]),
        }
        explanation = (
            "The targets of a batch are nearly all the same, and those of the next batch are the same again: the data "
            "come sorted. The network learns each class in turn and forgets the others; that its units die or its loss "
            "leaps comes of that."
        )
        now = level(history)
        severity: Severity = "warning" if now is not None and now.at_a_guess else "info"
        yield Finding(
            *("unshuffled_data", None, severity, calls.snapshots[0].step, evidence, explanation),
            traits=frozenset({Trait.EXCUSES}),
            decided_by=why,
        )
        return


def _within(calls: LossCalls) -> float:
    """Median share of a batch of the variance of all targets seen; NaN where too few were."""
    known = [record for record in calls.records if record.patterns >= LIMITS.patterns]
    whole = calls.pooled.target_std**2
    if len(known) < LIMITS.looks or not whole > 0:
        return math.nan
    return statistics.median(record.target_std**2 for record in known) / whole


def _successive(calls: LossCalls) -> float:
    """How far the mean targets of batches in a row are apart, over the mean of all pairs; NaN where none were seen."""
    looks = [
        (snapshot.step, record.target_mean) for snapshot, record in zip(calls.snapshots, calls.records, strict=True)
    ]
    near = [abs(mean - other) for (step, mean), (at, other) in itertools.pairwise(looks) if at == step + 1]
    apart = [abs(one - other) for (_, one), (_, other) in itertools.combinations(looks, 2)]
    if len(near) < HYSTERESIS - 1 or not sum(apart) > 0:
        return math.nan
    return statistics.fmean(near) / statistics.fmean(apart)
