"""validation_mismatch: the validation's data are of another scale, of other classes, or their classes numbered anew."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity
from lightning_tricks.diagnosis.history.learning import guess_of, guess_on_validation
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS
from lightning_tricks.diagnosis.history.progress import recent_loss, validations
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.diagnosis.rules.batch_norm_mismatch import find_batch_norm_mismatch
from lightning_tricks.probes import Snapshot, ValidationRecord

PROBLEM = "validation_mismatch"
CLASSES = Remedy(
    "share_classes", "give both data sets the same class numbers: one class_to_idx for training and validation"
)
SPLIT = Remedy(
    "stratify_split",
    "split at random, with the same shares: train_test_split(x, y, shuffle=True, stratify=y), or "
    "torch.utils.data.random_split instead of a cut through data that lie sorted",
)
BYTES = (240.0, 270.0)  # how much larger images of 0 to 255 are than those that ToTensor has divided by 255


@thresholds
class LIMITS:
    """Of the whole first validation: single batches of 37 to 1000 classes differ by .47 to .89, sorted ones by .9."""

    ratio: float = 3.0  # of standard deviations; raw pixels of digits, images and MNIST lie at 3.2 to 6, bytes at 255
    shift: float = 1.0  # of means, in standard deviations of the training; [0, 1] for [-1, 1] gives 1.06 to 1.4
    of_channels: float = 0.5  # that are off by as much; with one feature in ten tests, 50 of 50 healthy data sets alarm
    patterns: int = 16  # of either
    varies: float = 1e-6  # of the largest standard deviation, or a channel does not vary
    shares: float = 0.3  # total variation of the classes' shares, beyond its 99 % point where both are drawn alike:
    sure: float = 2.33
    # Validations of other labels, or of data on another scale. Of noise that is learned by heart the first loses 1.00
    # of a guess's, as the training does; with classes in another order it lost 1.07 to 6, the training .15 to .92; with
    # word ids of another vocabulary 1.26 to 1.66. Of 743 healthy trainings that had learned before a validation in
    # their first epoch (clinic, adversarial set) the highest lost .96 in that one.
    apart: float = 0.05
    unlike: float = 1.2  # validation loss over that of a guess, as soon as the training is under one by that much:
    learned: float = 0.7
    parted: float = 1.3  # validation over training loss, against the first validation; a sum for a mean stays at 1


@rule(
    PROBLEM,
    "code",
    "overfitting",
    clause="validation is of other data than training",
    order=10,
    table=(17, "the validation's transforms and class numbers"),
    needs="losses",
)
def find_validation_mismatch(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Validation data are of another scale, of other classes, or numbered in another order than in training."""
    known = next(((s.step, s.validation) for s in history if s.validation is not None), None)
    of_classes = None if known is None else _of_classes(*known, history)
    found = (None if known is None else _of_input(*known)) or of_classes
    if of_classes is None:  # where other classes are frequent, the loss says so and nothing else
        found = found if found is not None and found.rank else _of_loss(history) or found
    if found is not None:
        yield found


# --- the input ----------------------------------------------------------------------------------------------------


def _of_input(step: int, record: ValidationRecord) -> Finding | None:
    """The moments of what the first layer receives, over all channels and in most of those that vary."""
    train, validation = record.training, record.validation
    enough = min(train.patterns, validation.patterns) >= LIMITS.patterns and record.looks >= HYSTERESIS
    if not enough or not train.spread > 0 or not validation.spread > 0:
        return None
    ratio, shift = validation.spread / train.spread, (validation.center - train.center) / train.spread
    ratios, shifts = _by_channel(record)
    off = (np.maximum(ratios, 1.0 / ratios) > LIMITS.ratio) | (np.abs(shifts) > LIMITS.shift)
    why = [
        Criterion("standard deviation, larger over smaller", max(ratio, 1.0 / ratio), ">", LIMITS.ratio),
        Criterion("shift of the mean, in standard deviations", abs(shift), ">", LIMITS.shift),
        Criterion("share of the channels that are off", float(off.mean()), ">", LIMITS.of_channels),
    ]
    decided = tuple(criterion for criterion in why if criterion.holds)
    if not decided:
        return None
    in_limits = np.maximum(np.abs(np.log(ratios)) / math.log(LIMITS.ratio), np.abs(shifts) / LIMITS.shift)
    worst = int(np.argmax(in_limits))
    evidence = {
        "mean in training": train.center,
        "mean in validation": validation.center,
        "standard deviation in training": train.spread,
        "standard deviation in validation": validation.spread,
        "channels that are off": f"{int(off.sum())} of {len(off)}",
        "the worst channel": record.channels[worst],
        "its mean and std in training": f"{train.mean[worst]:.3g}, {train.std[worst]:.3g}",
        "its mean and std in validation": f"{validation.mean[worst]:.3g}, {validation.std[worst]:.3g}",
    }
    explanation = (
        f"What comes into {record.layer} has mean {train.center:.3g} and standard deviation {train.spread:.3g} in "
        f"training, mean {validation.center:.3g} and standard deviation {validation.spread:.3g} in validation. So the "
        "validation tells how the network does on data that it was not trained for."
    )
    todo = (_same_scale(record),)
    return Finding(PROBLEM, record.layer, "warning", step, evidence, explanation, todo, decided_by=decided)


def _by_channel(record: ValidationRecord) -> tuple[np.ndarray, np.ndarray]:
    """Ratios of the standard deviations and shifts of the means; of channels that vary in one only, no difference."""
    train, validation = np.array(record.training.std), np.array(record.validation.std)
    shift = np.array(record.validation.mean) - record.training.mean
    vary = (train > LIMITS.varies * train.max()) & (validation > LIMITS.varies * validation.max())
    whole = np.where(vary, train, 1.0)
    return np.where(vary, validation / whole, 1.0), np.where(vary, shift / whole, 0.0)


def _same_scale(record: ValidationRecord) -> Remedy:
    """The line that makes the validation's data what training has: data that were left raw, or made so twice."""
    train, validation = record.training, record.validation
    scale = validation.spread / train.spread
    offset = validation.center - scale * train.center
    if BYTES[0] < scale < BYTES[1]:
        line = "x = x / 255, as ToTensor() does with the training's images"
    elif BYTES[0] < 1.0 / scale < BYTES[1]:
        line = "no division by 255, as the training's images have none"
    elif abs(offset) < 0.1 * validation.spread:
        line = f"x = x / {scale:.3g}"
    else:
        line = f"x = (x - {offset:.3g}) / {scale:.3g}".replace("- -", "+ ")
    return Remedy(
        "same_transforms",
        "prepare the validation data as the training data are, by the training set's mean and standard deviation; "
        f"what that takes, over all channels: {line}",
        record.layer,
    )


# --- the classes --------------------------------------------------------------------------------------------------


def _of_classes(step: int, record: ValidationRecord, history: Sequence[Snapshot]) -> Finding | None:
    """The shares of the classes, once every pattern of the training has had its turn.

    Classes that are not the training's at all are there by design, as where features are learned.
    """
    counts = [s.losses[0].class_counts for s in history if s.losses]
    looks = np.array([each for each in counts if len(each) == len(record.class_counts)], np.float64)
    validation = np.array(record.class_counts, np.float64)
    if record.resampled or not record.whole or len(looks) < HYSTERESIS or not history[-1].epoch >= 1.0:
        return None
    seen = looks.sum(0)
    if np.count_nonzero(seen) < 2 or not validation.sum():
        return None
    train, shares = seen / seen.sum(), validation / validation.sum()
    distance, chance = float(np.abs(train - shares).sum()) / 2.0, _by_chance(looks, validation)
    far = Criterion("total variation of the classes' shares, beyond chance", distance - chance, ">", LIMITS.shares)
    if not far.holds:
        return None
    worst = int(np.argmax(np.abs(train - shares)))
    disjoint, new = not np.minimum(train, shares).any(), np.flatnonzero((seen == 0) & (validation > 0)).tolist()
    evidence = {
        "total variation": distance,
        "by chance, at most": chance,
        "class": worst,
        "its share in training": float(train[worst]),
        "its share in validation": float(shares[worst]),
        **({"classes seen in validation only": ", ".join(map(str, new[:10]))} if new else {}),
    }
    explanation = (
        f"The classes of training and validation differ: class {worst} makes up {train[worst]:.0%} of the targets in "
        f"training and {shares[worst]:.0%} in validation. "
        + (
            "They share no class: as it should be where features are learned, not classes; else the split is wrong."
            if disjoint
            else "So the validation tells how the network does on a mixture that it was not trained for."
        )
    )
    by_design = disjoint or _is_even(seen, validation) or _is_even(validation, seen)
    severity: Severity = "info" if by_design else "warning"
    return Finding(PROBLEM, None, severity, step, evidence, explanation, (SPLIT, CLASSES), decided_by=(far,))


def _is_even(chosen: np.ndarray, other: np.ndarray) -> bool:
    """Whether the counts are those of a set that holds every class of the other alike: chosen so, not cut off."""
    kept = chosen[other > 0]
    squares = float(((kept - kept.mean()) ** 2).sum() / max(kept.mean(), 1.0))
    by_chance = len(kept) - 1 + LIMITS.sure * math.sqrt(2.0 * (len(kept) - 1))
    return bool(kept.all()) and kept.sum() == chosen.sum() and squares <= by_chance


def _by_chance(looks: np.ndarray, validation: np.ndarray) -> float:
    """The 99 % point of the total variation, were both drawn alike.

    Batches that hold few of the classes, as sorted ones do, are worth fewer draws than they have patterns. Of two
    classes it lies a fifth too low.
    """
    sizes, pooled = looks.sum(1, keepdims=True), looks.sum(0) / looks.sum()
    kept = (pooled > 0) & (pooled < 1)
    expected = (sizes * pooled)[:, kept]
    dispersion = ((looks[:, kept] - expected) ** 2 / expected).sum() / ((len(looks) - 1) * (kept.sum() - 1))
    draws = looks.sum() / max(float(dispersion), 1.0), validation.sum()
    both = (draws[0] * pooled + validation) / (draws[0] + draws[1])
    std = np.sqrt(both * (1.0 - both) * (1.0 / draws[0] + 1.0 / draws[1]))
    # Mean and covariance of the sizes of normal numbers that are correlated as shares are.
    odds = np.sqrt(both / np.maximum(1.0 - both, 1e-12))
    rho = np.clip(-np.outer(odds, odds), -1.0, 1.0)
    np.fill_diagonal(rho, 1.0)
    covariance = np.outer(std, std) * 2.0 / math.pi * (rho * np.arcsin(rho) + np.sqrt(1.0 - rho * rho) - 1.0)
    return float((math.sqrt(2.0 / math.pi) * std.sum() + LIMITS.sure * math.sqrt(covariance.sum())) / 2.0)


# --- the loss -----------------------------------------------------------------------------------------------------


def _of_loss(history: Sequence[Snapshot]) -> Finding | None:
    """A validation loss over that of a guess from the first one on, the more so the better the training becomes.

    Not where the batch norms' statistics are to blame, nor where patterns came twice before the first validation.
    """
    known = validations(history)
    if len(known) < HYSTERESIS or not history[known[0]].epoch <= 1.0 or math.isnan(guess := guess_of(history)):
        return None
    losses, fresh = _since_begun(history, known, guess)
    if not _is_unlike(losses, fresh):
        return None
    (first_train, first), (train, now) = losses[0], losses[-1]
    lowest = min(validation for _, validation in losses)
    parted = now / train / (first / first_train) if train > 0 else math.inf
    why = (
        Criterion(
            "lowest validation loss since the training has begun, over a guess's", lowest, ">", 1.0 + LIMITS.apart
        ),
        Criterion("validation loss over a guess's", now, ">", LIMITS.unlike),
        Criterion("training loss over a guess's", train, "<", LIMITS.learned),
        Criterion("validation over training loss, against the first", parted, ">", LIMITS.parted),
        Criterion("validation loss over its first", now / first, ">=", 1.0),
    )
    if not all(each.holds for each in why) or any(each.rank for each in find_batch_norm_mismatch(history)):
        return None
    on_validation = guess_on_validation(history, guess)
    evidence = {
        "validation loss": now * on_validation,
        "training loss": train * guess,
        "loss of a guess": guess,
        "first validation loss": first * on_validation,
    }
    explanation = (
        f"The training loss is {train * guess:.3g}, far under the {guess:.3g} of a guess; the validation loss is "
        f"{now * on_validation:.3g}, and was over a guess's from the first on ({first * on_validation:.3g}). What the "
        "network learns is wrong there: classes are numbered otherwise, or inputs and targets do not belong together."
    )
    pairs = Remedy("check_targets", "show ten examples of both loaders, each with the name of its class")
    step = history[known[0]].step
    return Finding(PROBLEM, None, "critical", step, evidence, explanation, (CLASSES, pairs), decided_by=why)


def is_unlike(history: Sequence[Snapshot], known: Sequence[int], guess: float) -> bool:
    """Whether the validation never fitted what is trained: other labels, or data on another scale.

    The first validation that finds the training under a guess is itself over one, and the first two that find it far
    under are far over. Before any pattern came twice, one of the two may be as little over as the first.
    """
    return _is_unlike(*_since_begun(history, known, guess))


def _since_begun(
    history: Sequence[Snapshot], known: Sequence[int], guess: float
) -> tuple[list[tuple[float, float]], bool]:
    """Training and validation losses over a guess's, from the first validation on; and whether no pattern came twice.

    Within the first epoch they begin where the training is first found under a guess.
    """
    there = guess_on_validation(history, guess)
    losses = [(recent_loss(history[: index + 1]) / guess, history[index].validation_loss / there) for index in known]
    for begun, (index, (train, _)) in enumerate(zip(known, losses, strict=True)):
        if history[index].epoch <= 1.0 and train < 1.0 - LIMITS.apart:
            return losses[begun:], True
    return losses, False


def _is_unlike(losses: Sequence[tuple[float, float]], fresh: bool) -> bool:
    first_train, first = losses[0]
    trained = [validation for train, validation in losses if train < LIMITS.learned][:2]
    if not trained or first_train >= 1.0 - LIMITS.apart or first <= 1.0 + LIMITS.apart:
        return False
    return max(trained) > LIMITS.unlike and min(trained) > (1.0 + LIMITS.apart if fresh else LIMITS.unlike)
