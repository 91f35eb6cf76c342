"""overfitting: the training loss goes on falling while the validation loss climbs away from its minimum."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS
from lightning_tricks.diagnosis.history.progress import guess_loss, recent_loss
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import Snapshot


@thresholds
class LIMITS:
    """Calibrated on 36 healthy trainings on 3 data sets, up to 900 steps past the minimum, and 36 with wrong labels."""

    risen: float = 1.3  # every one of the last validation losses over the smallest
    risen_of_guess: float = 0.15  # and by this share of what a guess loses: a rise from .04 to .12 costs no accuracy
    below: float = 0.5  # training loss over validation loss
    still_falling: float = 0.9  # training loss over its value at the minimum of the validation loss
    far: float = 3.0


@rule(
    "overfitting",
    "end",
    clause="the network overfits",
    remedies=(
        Remedy("augment", "more data, or more varied data: random crops, flips, shifts or noise at every epoch"),
        Remedy("dropout", "drop hidden units at random: nn.Dropout(0.5) behind the wide layers"),
        Remedy("weight_decay", "keep the weights small: torch.optim.AdamW(..., weight_decay=0.01) or more"),
        Remedy("early_stopping", 'stop in time: lightning.pytorch.callbacks.EarlyStopping("val_loss")'),
        Remedy("bagging", "average several networks, each from a sample of the data: lt.BaggingEnsemble"),
    ),
    order=2,
    table=(17, "augmentation, dropout, early stopping, bagging"),
    needs=("losses", "validation"),
)
def find_overfitting(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """The validation loss rises for long while the training loss falls.

    Three validations in a row clearly above the best one, with the training loss far below and still falling.
    """
    known = validations(history)
    if len(known) <= HYSTERESIS:
        return
    best = min(known, key=lambda index: history[index].validation_loss)
    after = [history[index].validation_loss for index in known if index > best]
    step, lowest, guess = history[best].step, history[best].validation_loss, guess_loss(history[0])
    if not lowest > 0 or len(after) < HYSTERESIS:
        return
    first = next((abs(snapshot.loss) for snapshot in history if math.isfinite(snapshot.loss)), math.inf)
    bound = max(LIMITS.risen * lowest, lowest + LIMITS.risen_of_guess * (guess if guess > 0 else first))
    now, train, train_then = after[-1], recent_loss(history), recent_loss(history[best : best + 1])
    why = (
        Criterion("lowest of the last validation losses", min(after[-HYSTERESIS:]), ">=", bound),
        Criterion("training loss, by the validation loss", train, "<", LIMITS.below * now),
        Criterion("training loss, by that at the minimum", train, "<", LIMITS.still_falling * train_then),
    )
    if not all(criterion.holds for criterion in why):
        return
    evidence = {
        "validation loss": now,
        "its minimum": lowest,
        "at step": step,
        "training loss": train,
        "training loss at that step": train_then,
        "loss of a guess": guess,
    }
    explanation = (
        f"Since step {step} the validation loss has risen from {lowest:.3g} to {now:.3g} while the "
        f"training loss fell from {train_then:.3g} to {train:.3g}. The network learns its training examples by heart, "
        "noise included, and grows sure of answers that are wrong elsewhere."
    )
    severity: Severity = "critical" if now >= LIMITS.far * lowest or now > guess else "warning"
    yield Finding("overfitting", None, severity, step, evidence, explanation, decided_by=why)


def validations(history: Sequence[Snapshot]) -> list[int]:
    """The probed steps at which a new validation loss was known; between validations the latest one is seen again."""
    found: list[int] = []
    for index, snapshot in enumerate(history):
        loss = snapshot.validation_loss
        if math.isfinite(loss) and not (found and loss == history[found[-1]].validation_loss):
            found.append(index)
    return found
