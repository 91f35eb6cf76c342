"""overfitting: the training loss goes on falling while the validation loss climbs away from its minimum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity
from lightning_tricks.diagnosis.history.learning import guess_on_validation
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS
from lightning_tricks.diagnosis.history.progress import STUCK, guess_loss, recent_loss, validations
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.diagnosis.rules.validation_mismatch import is_unlike
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
    order=2,
    table=(17, "augmentation, dropout, early stopping, bagging"),
    needs=("losses", "validation"),
)
def find_overfitting(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """The validation loss rises for long while the training loss falls.

    Three validations in a row clearly above the best one, more so than ever before it, with the training loss far
    below and still falling.
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
    start = guess if guess > 0 else first
    bound = max(
        LIMITS.risen * lowest, lowest + LIMITS.risen_of_guess * start, lowest + _came_back(history, known, best)
    )
    now, train, train_then = after[-1], recent_loss(history), recent_loss(history[best : best + 1])
    why = (
        Criterion("lowest of the last validation losses", min(after[-HYSTERESIS:]), ">=", bound),
        Criterion("training loss, by the validation loss", train, "<", LIMITS.below * now),
        Criterion("training loss, by that at the minimum", train, "<", LIMITS.still_falling * train_then),
        Criterion("training loss, by that of a guess", train, "<", STUCK * start),
    )
    if not all(criterion.holds for criterion in why) or is_unlike(history, known, start):
        return
    # Where other classes are frequent on validation, to learn what is frequent in the training costs as much there.
    of_mixture = guess_on_validation(history, start) - start
    beyond = Criterion("its rise, by what other shares of the classes cost", now - lowest, ">", of_mixture)
    if not beyond.holds:
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
    todo = _remedies(history[-1], step)
    yield Finding(
        "overfitting",
        None,
        severity,
        step,
        evidence,
        explanation,
        todo,
        decided_by=(*why, *([beyond] if of_mixture else [])),
    )


def _came_back(history: Sequence[Snapshot], known: Sequence[int], best: int) -> float:
    """The largest rise of the validation loss before its minimum: one of that size need not stay."""
    losses = [history[index].validation_loss for index in known if index <= best]
    lows = itertools.accumulate(losses, min)
    return max(loss - low for loss, low in zip(losses, lows, strict=True))


def _remedies(snapshot: Snapshot, step: int) -> tuple[Remedy, ...]:
    images = any(record.operation.startswith("conv") for record in snapshot.weighted)
    varied = "random crops, flips or shifts" if images else "noise on the inputs"
    hidden = max(snapshot.weighted[:-1], key=lambda record: record.units, default=None)
    behind = "the wide layers" if hidden is None else f"{hidden.name}, the widest layer, or its activation"
    return (
        Remedy("augment", f"more data, or more varied data: {varied} at every epoch"),
        Remedy("dropout", f"drop hidden units at random: nn.Dropout(0.5) behind {behind}"),
        Remedy("weight_decay", "keep the weights small: torch.optim.AdamW(..., weight_decay=0.01) or more"),
        Remedy(
            "early_stopping",
            f'stop in time, near step {step}: lightning.pytorch.callbacks.EarlyStopping("val_loss")',
        ),
        Remedy("bagging", "average several networks, each from a sample of the data: lt.BaggingEnsemble"),
    )
