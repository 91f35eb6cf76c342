"""not_learning: the loss stays at that of a guess, and no rule found why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity
from lightning_tricks.diagnosis.history.learning import AT_A_GUESS, FALLING, Level, at_full_rate, level
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import Snapshot


@thresholds
class LIMITS:
    """Looser tests alarm on AdamW with 4000 steps of warm-up, on parity and on slow SGD.

    The level's standard error takes the batch and the length into account: small batches need more steps until it is
    under ``error``. ``steps`` is what a slow optimiser needs beside; a short training of large batches has ``epochs``.
    """

    error: float = 0.01  # standard error of the level, of the guess's loss
    steps: int = 1000  # optimiser steps ...
    epochs: float = 3.0  # ... or passes over the data
    full_rate: int = 100  # steps at the full rate before it can be told
    of_highest: float = 0.5  # a rate that counts as full, of the highest
    sure: float = 2.0  # standard errors of the level ...
    little: float = (
        0.01  # ... within which it may have come under a guess's by so much: a R2 of .01 is all in some data
    )


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
    follows_from="*",
    table=(99, "targets that belong to the inputs"),
    remedies=_REMEDIES,
    needs="losses",
)
def find_not_learning(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """The loss stays at that of a guess, and no other rule says why."""
    now = level(history)
    if now is None or not now.at_a_guess or not _had_its_time(history, now):
        return
    may_be = now.mean - LIMITS.sure * now.error
    sure = Criterion("the least it may be, over that of a guess", may_be / now.guess, ">=", 1.0 - LIMITS.little)
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
    yield Finding("not_learning", None, severity, now.since, evidence, explanation, decided_by=tuple(why))


def _had_its_time(history: Sequence[Snapshot], now: Level) -> bool:
    """Whether the loss is known well enough, and the training long enough at its full rate."""
    if now.error >= LIMITS.error * now.guess or now.fall >= FALLING:
        return False
    epochs = history[-1].epoch - history[0].epoch  # NaN where they are not counted
    if now.steps < LIMITS.steps and not epochs >= LIMITS.epochs:
        return False
    return at_full_rate(history, LIMITS.full_rate, LIMITS.of_highest)
