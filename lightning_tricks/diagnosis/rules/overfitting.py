"""overfitting: the training loss goes on falling while the validation loss climbs away from its minimum."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Finding, Severity
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS
from lightning_tricks.diagnosis.history.progress import guess_loss, recent_loss
from lightning_tricks.probes import Snapshot

# Calibrated on 36 healthy trainings on 3 data sets, up to 900 steps past the minimum, and 36 with wrong labels.
RISEN = 1.3  # every one of the last validation losses over the smallest
RISEN_OF_GUESS = 0.15  # and by this share of what a guess loses: a rise from .04 to .12 costs no accuracy
BELOW = 0.5  # training loss over validation loss
STILL_FALLING = 0.9  # training loss over its value at the minimum of the validation loss
FAR = 3.0


def find_overfitting(history: Sequence[Snapshot]) -> list[Finding]:
    """Three validations in a row clearly above the best one, with the training loss far below and still falling."""
    looks = validations(history)
    if len(looks) <= HYSTERESIS:
        return []
    best = min(looks, key=lambda index: history[index].validation_loss)
    after = [history[index].validation_loss for index in looks if index > best]
    lowest, now, guess = history[best].validation_loss, history[looks[-1]].validation_loss, guess_loss(history[0])
    if not lowest > 0 or len(after) < HYSTERESIS:
        return []
    reference = guess if guess > 0 else _first(history)
    bound = max(RISEN * lowest, lowest + RISEN_OF_GUESS * reference)
    if not min(after[-HYSTERESIS:]) >= bound:
        return []
    train, train_then = recent_loss(history), recent_loss(history[best : best + 1])
    if not (train < BELOW * now and train < STILL_FALLING * train_then):
        return []
    evidence = {
        "validation loss": now,
        "its minimum": lowest,
        "at step": history[best].step,
        "training loss": train,
        "training loss at that step": train_then,
        "loss of a guess": guess,
    }
    explanation = (
        f"Since step {history[best].step} the validation loss has risen from {lowest:.3g} to {now:.3g} while the "
        f"training loss fell from {train_then:.3g} to {train:.3g}. The network learns its training examples by heart, "
        "noise included, and grows sure of answers that are wrong elsewhere."
    )
    todo = (
        remedies.AUGMENT,
        remedies.DROPOUT,
        remedies.WEIGHT_DECAY,
        remedies.EARLY_STOPPING,
        remedies.BAGGING,
    )
    severity: Severity = "critical" if now >= FAR * lowest or now > guess else "warning"
    return [Finding("overfitting", None, severity, history[best].step, evidence, explanation, todo)]


def validations(history: Sequence[Snapshot]) -> list[int]:
    """The looks at which a new validation loss was known; between validations the latest one is seen again."""
    found: list[int] = []
    for index, snapshot in enumerate(history):
        loss = snapshot.validation_loss
        if math.isfinite(loss) and not (found and loss == history[found[-1]].validation_loss):
            found.append(index)
    return found


def _first(history: Sequence[Snapshot]) -> float:
    return next((abs(snapshot.loss) for snapshot in history if math.isfinite(snapshot.loss)), math.inf)
