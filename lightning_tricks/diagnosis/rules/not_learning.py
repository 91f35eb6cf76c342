"""not_learning: the loss stays at that of a guess, and no rule found why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity, Trait
from lightning_tricks.diagnosis.history import learning
from lightning_tricks.diagnosis.history.learning import AT_A_GUESS, FALLING, LITTLE, SURE
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS
from lightning_tricks.diagnosis.history.progress import first_validation, validations
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import Snapshot


@thresholds
class LIMITS:
    """Looser tests alarm on AdamW with 4000 steps of warm-up, on parity and on slow SGD.

    The level's standard error takes the batch and the length into account: small batches need more steps until it is
    under ``error``.
    """

    error: float = 0.01  # standard error of the level, of the guess's loss
    full_rate: int = 100  # steps at the full rate before it can be told
    chance: float = 3.0  # standard errors: the lowest of several validations
    of_highest: float = 0.5  # a rate that counts as full, of the highest


_REMEDIES = (
    Remedy("check_targets", "look whether the targets belong to the inputs: show ten examples of the loader"),
    Remedy("memorise", "train on one batch of 16 examples: if its loss does not go to 0, the fault is in the model"),
    Remedy("change_learning_rate", "try the learning rate times 10, and a tenth of it"),
)


@rule(
    "not_learning",
    "end",
    heading="not learning",
    clause="the loss stays at that of a guess",
    clauses={Trait.BY_HEART: "what is learned is of no use on validation"},
    follows_from="*",
    table=(99, "targets that belong to the inputs"),
    remedies=_REMEDIES,
    needs="losses",
)
def find_not_learning(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """The loss stays at that of a guess, in training or on validation only, and no other rule says why."""
    now = learning.level(history)
    if now is None or now.error >= LIMITS.error * now.guess or not learning.had_its_time(history):
        return
    if not learning.at_full_rate(history, LIMITS.full_rate, LIMITS.of_highest):
        return
    if not now.at_a_guess:
        yield from _by_heart(history, now)
    elif now.fall < FALLING:
        yield _standing(now)


def _standing(now: learning.Level) -> Finding:
    may_be = now.mean - SURE * now.error
    sure = Criterion("the least it may be, over that of a guess", may_be / now.guess, ">=", 1.0 - LITTLE)
    why = [
        Criterion("loss over that of a guess", now.share, ">=", AT_A_GUESS),
        Criterion("fall of the later half, in standard errors", now.fall, "<", FALLING),
        *([sure] if sure.holds else []),
    ]
    evidence = {"loss": now.mean, "its standard error": now.error, "loss of a guess": now.guess, "steps": now.steps}
    explanation = (
        f"After {now.steps} steps the loss is {now.mean:.4g} and falls no more, where the same output for every input "
        f"would have {now.guess:.4g}. "
        + (
            "It may be a little better than that: there is hardly anything to learn, or the training misses it."
            if not sure.holds
            else "Whatever the network has learned, it says nothing about the targets."
        )
    )
    severity: Severity = "warning" if sure.holds else "info"
    return Finding("not_learning", None, severity, now.since, evidence, explanation, decided_by=tuple(why))


def _by_chance(history: Sequence[Snapshot]) -> float:
    """How far outputs that know nothing may come under a guess on n patterns.

    Of log-likelihood ratios with standard deviation s the mean is -s^2 / 2 (s^2 / n its variance), and the most that
    they reach with so many standard errors z is z^2 / 2n, where s = z / sqrt(n).
    """
    record = first_validation(history)
    patterns = 0 if record is None else sum(record.class_counts)
    return LIMITS.chance**2 / (2.0 * patterns) if patterns else 0.0


def _by_heart(history: Sequence[Snapshot], now: learning.Level) -> Iterator[Finding]:
    """No validation was ever really under a guess's loss, and the less so the further the training fell under it."""
    known = validations(history)
    guess = learning.guess_on_validation(history, now.guess)
    losses = [history[index].validation_loss / guess for index in known]
    if len(losses) < HYSTERESIS:
        return
    half, by_chance = len(losses) // 2, _by_chance(history) / guess
    risen = float(np.mean(losses[half:]) / np.mean(losses[:half]))
    why = (
        Criterion("lowest validation loss over that of a guess", min(losses), ">=", 1.0 - by_chance),
        Criterion("the latest over the first", losses[-1] / losses[0], ">=", 1.0),
        Criterion("the later half over the earlier", risen, ">=", 1.0),
        Criterion("training loss over that of a guess", now.share, "<", AT_A_GUESS),
    )
    if not all(each.holds for each in why):
        return
    evidence = {
        "loss": now.mean,
        "lowest validation loss": min(losses) * guess,
        "validation loss": losses[-1] * guess,
        "loss of a guess": now.guess,
        "steps": now.steps,
    }
    explanation = (
        f"After {now.steps} steps the training loss is {now.mean:.4g}, under the {now.guess:.4g} of a guess; the "
        f"validation loss never was: {evidence['lowest validation loss']:.4g} at best. What is learned is learned by "
        "heart: either the targets do not belong to the inputs, or these say nothing about them."
    )
    traits = frozenset({Trait.BY_HEART})
    yield Finding(
        "not_learning", None, "warning", history[known[0]].step, evidence, explanation, traits=traits, decided_by=why
    )
