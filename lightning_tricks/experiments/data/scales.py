"""scales: do some patterns, or those of validation, come in another unit than the others?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.experiments.asking.asks import Answer, asks
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.data.patterns.examples import examples_of, listed
from lightning_tricks.experiments.data.patterns.fields import Column
from lightning_tricks.experiments.data.patterns.neighbours import Data, read_once
from lightning_tricks.experiments.data.patterns.prepared import Off, holds
from lightning_tricks.experiments.data.patterns.reading import Patterns

QUESTION = "Do some patterns come in another unit?"
_FEWEST = 3  # patterns of a unit
_DIFFERENT = 8  # numbers on both sides: else they are codes, such as 1 and 100
_WINDOW = math.log(3)  # in which sizes are counted
_SURE = 4.0  # standard errors by which a second group is one
_MOST = 512  # features that are looked at one by one


@dataclasses.dataclass(frozen=True)
class OtherUnit:
    """Patterns that come in another unit than most: where, which (by their places), and by what factor."""

    name: str
    places: np.ndarray
    factor: float


@asks(QUESTION)
def scales(data: Any, val_data: Any = None) -> Answer:
    """Sizes of patterns and of single features in two groups with nothing between them; validation against training.

    Of images, series and whole patterns the size is the root mean square; features of tables are looked at one by
    one. Two groups are two units if they lie a factor of ten apart, and brought together look alike.

    Args:
        data: A loader, a data set, a LightningDataModule, an iterable of batches, or one batch.
        val_data: The same for validation.

    Returns:
        Numbers: ``others``: patterns in another unit, and the ``factor`` to the most; of validation ``off``: the share
        of features whose median or quartile range is another. Where there are such, and targets can be predicted:
        ``known``, the error of a small model over that of a guess, of the training patterns that it has not seen, and
        how far it comes from a guess to that error in validation: as this is ``given``, and ``restored`` to the
        training's means and scales.

        How to read it: images read by two ways, one of which divides by 255; a source that measures in metres. Given
        near 1: validation is of other groups or times, and what is learned holds there. Restored near 1 and given far
        under it: its transform was forgotten.

    >>> x = torch.rand(200, 3, 8, 8)
    >>> x[:10] *= 255
    >>> scales((x, torch.zeros(200))).numbers["others"]
    10.0
    """
    return _measured(Data(data, val_data))[0]


def _measured(data: Data) -> tuple[Answer, OtherUnit | None]:
    train = data.train
    unit = other_unit_of(train)
    numbers = {"others": 0.0, "factor": 1.0}
    text, shown = "no, all in one unit", []
    if unit is not None:
        numbers |= {"others": float(len(unit.places)), "factor": unit.factor}
        named = f"{listed(train, unit.places)}: {train.numbering}"
        text = f"{len(unit.places)} of {len(train)}, a factor of {unit.factor:.3g} in {unit.name} ({named})"
        shown = examples_of(train, ((int(i), f"{unit.factor:.3g} times the size in {unit.name}") for i in unit.places))
    if data.validation is not None:
        off = Off.of(train, data.validation)
        if off is not None:
            numbers["off"] = off.share
            text += f"; in validation {off.share:.0%} of the features are off"
        told = holds(data) if off is not None and off.features else None
        if told is not None:
            numbers |= {"known": told.known, "given": told.given, "restored": told.restored}
    return Answer(text, numbers, examples=shown), unit


def other_unit_of(patterns: Patterns) -> OtherUnit | None:
    """The patterns in another unit, of the input in which most are."""
    found = [unit for column in patterns.inputs for unit in _units(column)]
    return max(found, key=lambda unit: len(unit.places), default=None)


def _units(column: Column) -> Iterator[OtherUnit]:
    values = torch.nan_to_num(column.flat(), posinf=0.0, neginf=0.0).double()
    if column.kind == "tokens":
        return
    alone = len(column.shape) > 1 or not 1 < values.shape[1] <= _MOST  # no table of columns
    found = {} if alone else {k: _two_groups(values[:, k]) for k in range(values.shape[1])}
    columns = {k: group for k, group in found.items() if group is not None}
    if not 0 < 2 * len(columns) <= values.shape[1]:  # more of them: all of a pattern is in another unit
        whole = _two_groups(values.square().mean(1).sqrt())
        if whole is not None:
            yield OtherUnit(column.name, *whole)
            return
    for k, group in columns.items():
        yield OtherUnit(f"{column.name}[:, {k}]", *group)


def _two_groups(values: Tensor) -> tuple[np.ndarray, float] | None:
    """The smaller of two groups of sizes that look alike but for a factor, with hardly anything between."""
    numbers = values.numpy().astype(float)
    places = np.flatnonzero(numbers)
    logs, positive = np.log(np.abs(numbers[places])), numbers[places] > 0
    if len(places) < 4 * _FEWEST:
        return None
    order = np.argsort(logs)
    cut = _gap(logs[order]) or _valley(logs[order])
    if not cut:
        return None
    low, high = order[:cut], order[cut:]
    factor = float(np.median(logs[high]) - np.median(logs[low]))
    fewer_high = len(high) <= len(low)
    if factor < math.log(LIMITS.factor) or not (fewer_high or positive.all()):
        return None  # numbers of both signs pass through zero: some are small by nature
    if abs(positive[low].mean() - positive[high].mean()) > LIMITS.signs:
        return None  # zeros with something added
    if min(len(np.unique(logs[part])) for part in (low, high)) < min(_DIFFERENT, len(low), len(high)):
        return None
    spreads = sorted((_spread(logs[low]), _spread(logs[high])))
    if spreads[1] > LIMITS.alike * max(spreads[0], 0.05) or spreads[1] > factor:
        return None
    return np.sort(places[high if fewer_high else low]), math.exp(factor if fewer_high else -factor)


def _gap(logs: np.ndarray) -> int:
    """Where between sorted numbers nothing lies, for a good part of the way between the medians; 0 for nowhere."""
    steps = np.diff(logs)[_FEWEST - 1 : len(logs) - _FEWEST]
    cut = int(steps.argmax()) + _FEWEST
    factor = float(np.median(logs[cut:]) - np.median(logs[:cut]))
    return cut if steps.max() >= LIMITS.gap * factor else 0


def _valley(logs: np.ndarray) -> int:
    """Where sorted numbers are rare between two groups in which they are much more frequent; 0 for nowhere.

    The tail of a wide distribution falls on and on: a second group is one where there are more again.
    """
    at = np.arange(logs[0], logs[-1] + _WINDOW, _WINDOW / 4)
    count = np.searchsorted(logs, at + _WINDOW / 2) - np.searchsorted(logs, at - _WINDOW / 2)
    before, after = np.maximum.accumulate(count), np.maximum.accumulate(count[::-1])[::-1]
    peak = np.minimum(before, after)
    sure = (peak - count > _SURE * np.sqrt(peak + count)) & (count <= LIMITS.valley * peak)
    if not sure.any():
        return 0
    deepest = np.flatnonzero(sure & (peak - count == (peak - count)[sure].max()))
    return int(np.searchsorted(logs, at[deepest[len(deepest) // 2]]))


def _spread(x: np.ndarray) -> float:
    return float(np.subtract(*np.quantile(x, [0.9, 0.1])))


@thresholds
class LIMITS:
    factor: float = 10.0  # between units: centimetres and metres have 100, pixels 255
    gap: float = 0.3  # of the way between the medians nothing lies
    valley: float = 0.25  # or this much of the smaller group's height
    signs: float = 0.3  # between the shares of positive numbers
    of_class: float = 0.9  # of a class in a group, and of the group in the class: then it is the class that is so
    alike: float = 3.0  # between the spreads of the two groups' logarithms
    share: float = 0.5  # of the features, as of the rule that reads them in a training
    known: float = 0.9  # of a guess's error: else targets do not tell
    # Of the way from a guess to that error. Without its transform .4 at most as given, .88 and more restored; of other
    # groups, sizes and times .64 and more as given (.4 where a model has to go far beyond), .54 at most restored.
    restored: float = 0.7
    gain: float = 0.3
    given: float = 0.3


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    if "scales" in subject.notes:
        yield from judged(found, read_once(subject), subject.notes["scales"], subject.diagnosis.history[0].step)
        if not subject.knows("validation_mismatch"):
            yield from of_validation(found, read_once(subject), subject.diagnosis.history[0].step)


def judged(found: Experiment, data: Data, unit: OtherUnit | None, step: int = 0) -> Iterator[Finding]:
    """Some patterns in another unit."""
    if unit is None or _is_a_class(data, unit):
        return
    train = data.train
    why = (Criterion("factor between two groups of patterns", max(unit.factor, 1 / unit.factor), ">", LIMITS.factor),)
    numbers = listed(train, unit.places)
    explanation = (
        f"{len(unit.places)} of {len(train)} training patterns are {unit.factor:.3g} times the size of the others in "
        f"{unit.name}, and nothing lies between: they come in another unit, and one scale cannot fit both."
    )
    evidence = {"patterns": len(unit.places), "factor": unit.factor, f"examples, by their {train.numbering}": numbers}
    todo = Remedy(
        "same_unit", f"bring these into the unit of the others: x = x / {unit.factor:.4g} (patterns {numbers})"
    )
    yield Finding("unnormalized_input", None, "warning", step, evidence, explanation, (todo,), decided_by=why)


def _is_a_class(data: Data, unit: OtherUnit) -> bool:
    if data.classes is None:
        return False
    inside = np.isin(np.arange(len(data.train)), unit.places)
    for c in np.unique(data.classes[unit.places]):
        both = (inside & (data.classes == c)).sum()
        if both >= LIMITS.of_class * max(inside.sum(), (data.classes == c).sum()):
            return True
    return False


def of_validation(found: Experiment, data: Data, step: int = 0) -> Iterator[Finding]:
    """Validation in another unit, or with its features in another order."""
    numbers = found.numbers
    off = Criterion("share of features with another mean or spread", numbers.get("off", 0.0), ">", LIMITS.share)
    told = numbers.get("known", math.inf) < LIMITS.known
    restored, given = numbers.get("restored", math.nan), numbers.get("given", math.nan)
    forgotten = (
        Criterion("what holds of the training once validation has its scales", restored, ">=", LIMITS.restored),
        Criterion("what that gains", restored - given, ">=", LIMITS.gain),
    )
    otherwise = (off, *((Criterion("what holds of the training", given, "<", LIMITS.given),) if told else ()))
    why = next(
        (each for each in ((forgotten, otherwise) if told else (otherwise,)) if all(one.holds for one in each)), None
    )
    if why is None:
        return
    explanation = (
        f"In validation {numbers['off']:.0%} of the input features have another mean or spread than in the training"
    )
    if why is forgotten:
        explanation += (
            f". What the training says of targets holds there for {max(given, 0.0):.0%}, and for {restored:.0%} once "
            "they have the training's means and scales: their transform was forgotten, or fitted to other data."
        )
    else:
        explanation += ": the two are not prepared alike, or their columns stand in another order."
    todo = Remedy(
        "same_transform",
        "one transform for both: scaler.fit(x_train), then scaler.transform(x_val), or T.Normalize in both",
    )
    off_scale = None if data.validation is None else Off.of(data.train, data.validation)
    features = () if off_scale is None else off_scale.features
    evidence = {**numbers, "features": ", ".join(features)}
    yield Finding("validation_mismatch", None, "warning", step, evidence, explanation, (todo,), decided_by=why)


@tried("scales", order=24, brings=_brings)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject)


def _of_subject(subject: Subject) -> Answer:
    answer, subject.notes["scales"] = _measured(read_once(subject))
    return answer


_asked = asks(QUESTION, "scales")(_of_subject)
