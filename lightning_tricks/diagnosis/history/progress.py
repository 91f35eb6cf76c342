"""Whether a training gets anywhere: its loss against its start and that of a guess, and the size of its updates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.probes import ParameterRecord, Snapshot, ValidationRecord

_LEVEL = 3  # probed steps over which a loss is a level and no single batch
_ALIKE = 1.2  # of shares of the gradient: weight decay adds a little of its own
_ROUNDING = 2.0**-23  # of a weight, where an update is that small
STUCK = 0.9  # loss over its start, or over that of a guess


def recent_loss(history: Sequence[Snapshot]) -> float:
    """Median over the last probed steps and the steps between them."""
    losses: list[float] = []
    for snapshot in reversed(history[-_LEVEL:]):
        losses += [snapshot.loss, *reversed(snapshot.recent_losses)]
        if len(losses) >= 10:
            break
    return median(losses)


def validations(history: Sequence[Snapshot]) -> list[int]:
    """The probed steps at which a new validation loss was known; between validations the latest one is seen again."""
    found: list[int] = []
    for index, snapshot in enumerate(history):
        loss = snapshot.validation_loss
        if math.isfinite(loss) and not (found and loss == history[found[-1]].validation_loss):
            found.append(index)
    return found


def first_validation(history: Sequence[Snapshot]) -> ValidationRecord | None:
    """What was seen of the first validation; None where it was not looked at."""
    return next((snapshot.validation for snapshot in history if snapshot.validation is not None), None)


@remembered
def guess_loss(snapshot: Snapshot) -> float:
    """What a guess without looking at the input loses; NaN where the loss is not of one known call."""
    if len(snapshot.losses) != 1:
        return math.nan
    (record,) = snapshot.losses
    if not math.isnan(record.value) and not math.isclose(record.value, snapshot.loss, rel_tol=0.1):
        return math.nan  # a sum over patterns, or one of several terms
    of_mean = math.isnan(record.chance) and record.function == "mse_loss"
    return record.target_std**2 if of_mean else record.chance


def is_stuck(history: Sequence[Snapshot]) -> bool:
    """Whether the loss has come back to where it began, or to that of a guess; a loss that is no number counts."""
    if len(history) <= _LEVEL or math.isnan(history[0].loss):
        return False
    now = recent_loss(history)
    return not now < STUCK * history[0].loss or now >= STUCK * guess_loss(history[0])


def last_at_start(history: Sequence[Snapshot]) -> int | None:
    """The step of the last look before the loss had come down from where it began; None where it never has."""
    for index in range(_LEVEL, len(history)):
        if recent_loss(history[: index + 1]) < STUCK * history[0].loss:
            return history[index - _LEVEL // 2 - 1].step  # a median shows a fall as late as half of its looks
    return None


def guess_or_start(history: Sequence[Snapshot]) -> float:
    """The loss of a guess; where none is known, that of the start."""
    guess = guess_loss(history[0])
    return history[0].loss if math.isnan(guess) else guess


@remembered
def weights(snapshot: Snapshot) -> list[ParameterRecord]:
    """The parameters that some layer multiplies its input with."""
    return [record for record in snapshot.parameters if record.fan_in or record.layer is not None]


@remembered
def trained_weights(snapshot: Snapshot) -> list[ParameterRecord]:
    """The weights that are trained; biases and norms begin at zero or are few."""
    return [r for r in snapshot.parameters if r.fan_in > 1 and r.trainable and r.optimized and r.gradient >= 0]


@remembered
def typical_ratio(snapshot: Snapshot) -> float:
    """Median update ratio over the weights that are trained."""
    return median([record.update_ratio for record in trained_weights(snapshot)])


def norm(parameters: Iterable[ParameterRecord], of: str = "gradient") -> float:
    """The norm of the gradients of several parameters together, before clipping, or of another of their measures."""
    squares = ((getattr(r, of) ** 2, math.prod(r.shape)) for r in parameters)
    return math.sqrt(sum(square * size for square, size in squares if not math.isnan(square)))


def gradient_share(snapshot: Snapshot, *, arrived: bool = False) -> float:
    """Update over learning rate times gradient: 1 where a step is just that, less where the gradient is clipped.

    NaN where weights differ in it, as their steps are then of a size of their own (Adam), or no rate is known; with
    ``arrived`` it is the gradient as the optimiser got it.
    """
    rate = snapshot.learning_rate
    known = [(r, r.arrived if arrived and not math.isnan(r.arrived) else r.gradient) for r in trained_weights(snapshot)]
    moved = [(r, gradient) for r, gradient in known if gradient > 0 and r.update > 0]
    if not moved or not rate > 0:
        return math.nan
    shares = [r.update / (rate * gradient) for r, gradient in moved]
    alike = _ALIKE + _ROUNDING / min(r.update_ratio for r, _ in moved)
    return median(shares) if max(shares) <= alike * min(shares) else math.nan


def summed_terms(snapshot: Snapshot) -> int:
    """Of how many terms the loss is the sum, where it is one of one known call: patterns, or elements; 0 elsewhere."""
    if len(snapshot.losses) != 1:
        return 0
    (record,) = snapshot.losses
    elements = math.prod(record.input_shape)
    counts = {elements // max(record.outputs, 1), elements} - {0, 1}
    return next((n for n in sorted(counts) if math.isclose(snapshot.loss, n * record.value, rel_tol=1e-3)), 0)


def median(values: Iterable[float]) -> float:
    """The median of those that are known; NaN where none is."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def all_losses(history: Iterable[Snapshot]) -> list[float]:
    """The losses that are known, those between the probed steps included."""
    losses = [loss for snapshot in history for loss in (*snapshot.recent_losses, snapshot.loss)]
    return [loss for loss in losses if not math.isnan(loss)]
