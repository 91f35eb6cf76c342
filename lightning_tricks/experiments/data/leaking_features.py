"""leaking_features: does a single column, pixel or position give the label away?"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.experiments.asking.asks import Answer, asks
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.data.patterns.codes import codes_of, is_apart
from lightning_tricks.experiments.data.patterns.copies import keys_of
from lightning_tricks.experiments.data.patterns.features import table_of, values_of
from lightning_tricks.experiments.data.patterns.neighbours import Data, read_once
from lightning_tricks.experiments.preflight.patterns import NotAskedError

QUESTION = "Does a single input feature give the target away?"
_FEWEST = 40  # patterns
_MOST = 5_000  # patterns that are sorted by each feature
_AT_ONCE = 2 * 10**7  # numbers


@asks(QUESTION)
def leaking_features(data: Any) -> Answer:
    """How much of the target every single input feature leaves open, the least against the next.

    Patterns are sorted by a feature, equal ones in random order; what neighbours in that order differ in their targets,
    over what random patterns do, is left open by it: 0 where it tells all, 1 where it tells nothing. Of classes it is
    the share of pairs that differ, of numbers the median of their squared difference. Nothing is fitted.

    Args:
        data: A loader, a data set, a LightningDataModule, an iterable of batches, or one batch ``(x, y)``.

    Returns:
        Numbers: ``features``; ``best``, the number of the feature that tells most; ``open``: what it leaves open, and
        ``next_open``: the best of the others, copies of it left out; ``apart``: of classes, the distance of the
        class medians of this feature over the spread within a class, the least of neighbouring classes;
        ``next_coded``: whether the next one holds no more different numbers than there are classes. Of the best column
        that has one number for every class ``code``, which it is, ``code_open``, and ``code_hangs`` and
        ``others_hang``: how much where it fails hangs together with other features beyond the class, and how much these
        do, over what chance gives.

        How to read it: near 0 and many times less than the next: as a rule the label itself, or what was known only
        with it. Classes that lie apart in it are those of a code, not of a threshold. A code that knows nothing but
        the class (under 1), where features otherwise hang together, was written from it, right or not.

    >>> x, y = torch.randn(400, 6), torch.arange(400) % 3
    >>> x[:, 2] = y
    >>> leaking_features((x, y)).place
    '0[:, 2]'
    """
    return _measured(Data(data))


def _measured(data: Data) -> Answer:
    # A pattern that is there several times would be its own neighbour.
    once = np.sort(np.unique(keys_of(data.train), return_index=True)[1])
    train = data.train.some(once)
    if train.target is not None and train.target.name.isdigit() and int(train.target.name) > 1:
        # Of more than a pair only the first is known to go into the network: rollouts hold returns beside advantages.
        first = tuple(column for column in train.inputs if column.name.partition(".")[0] == "0")
        train = dataclasses.replace(train, inputs=first or train.inputs)
    table, names = table_of(train)
    classes, values = data.classes, values_of(data.train.target)
    classes, values = (None if each is None else each[once] for each in (classes, values))
    if classes is None and values is None:
        raise NotAskedError("the targets are neither classes nor one number a pattern")
    if len(table) < _FEWEST or table.shape[1] < 2:
        raise NotAskedError("too few patterns" if len(table) < _FEWEST else "there is one feature")
    wanted = torch.from_numpy(classes.astype(np.float64) if classes is not None else values)
    if len(table) > _MOST:
        some = torch.randperm(len(table), generator=Generator().manual_seed(0))[:_MOST]
        table, wanted = table[some], wanted[some]
    left = left_open(table, wanted, classes is not None)
    best = int(left.argmin())
    copies = _copies(table, best)
    others = torch.where(copies, torch.inf, left)
    numbers = {"features": float(len(names)), "best": float(best), "open": max(float(left[best]), 0.0)}
    numbers["next_open"] = float(others.min()) if bool((~copies).any()) else math.nan
    if classes is not None:
        numbers["apart"] = _apart(table[:, best].double().numpy(), wanted.numpy())
        numbers["next_coded"] = float(_is_code(table[:, int(others.argmin())], len(wanted.unique())))
        numbers |= _best_code(table, wanted.numpy(), left)
    text = f"{names[best]} leaves {numbers['open']:.0%} open, the next {numbers['next_open']:.0%}"
    place = names[int(numbers["code"])] if _is_written(numbers) else names[best]
    return Answer(text, numbers, place=place)


def _best_code(table: Tensor, classes: np.ndarray, left: Tensor) -> dict[str, float]:
    """Of columns with a number for every class the one that tells most, if no other of them tells nearly as much."""
    codes = sorted((float(left[k]), k, wrong) for k, wrong in codes_of(table, classes))
    if not codes or codes[0][0] >= LIMITS.written or (len(codes) > 1 and codes[1][0] < LIMITS.of_codes * codes[0][0]):
        return {}
    open_, k, wrong = codes[0]
    hangs, others = is_apart(table, k, wrong, classes)
    return {"code": float(k), "code_open": open_, "code_hangs": hangs, "others_hang": others}


def left_open(table: Tensor, wanted: Tensor, classes: bool) -> Tensor:
    """For every column how much of the targets it leaves open; 1 for a constant column."""
    mixed = torch.randperm(len(table), generator=Generator().manual_seed(1))
    table, wanted = table[mixed], wanted[mixed]  # equal numbers come in random order
    if classes:
        shares = wanted.unique(return_counts=True)[1].double() / len(wanted)
        chance = float(1 - shares.square().sum()) * len(wanted) / (len(wanted) - 1)
    else:
        chance = float((wanted - wanted.roll(len(wanted) // 2)).square().median())
    found = []
    for part in table.split(max(_AT_ONCE // len(table), 1), 1):
        sorted_ = wanted[part.argsort(dim=0, stable=True)]
        step = sorted_[1:] - sorted_[:-1]
        found.append((step != 0).double().mean(0) if classes else step.square().median(0).values)
    left = torch.cat(found) / max(chance, 1e-30)
    return torch.where((table == table[:1]).all(0), 1.0, left)


def _copies(table: Tensor, best: int) -> Tensor:
    """Columns that are the same one in other units: a mark of several pixels, a column that is there twice."""
    x = table.double()
    x = (x - x.mean(0)) / x.std(0).clamp(min=1e-30)
    alike = (x.T @ x[:, best]).abs() / (len(x) - 1) > 1 - LIMITS.rounding
    alike[best] = True
    return alike


def _is_code(column: Tensor, count: int) -> bool:
    """Whether it holds no more different numbers than there are classes: votes, symptoms."""
    return len(column.unique()) <= count


def _apart(feature: np.ndarray, classes: np.ndarray) -> float:
    """Between neighbouring classes, the distance of their medians over the mean of their quartile ranges."""
    quartiles = sorted(np.quantile(feature[classes == c], [0.5, 0.25, 0.75]).tolist() for c in np.unique(classes))
    gaps = [(b[0] - a[0], (a[2] - a[1] + b[2] - b[1]) / 2) for a, b in itertools.pairwise(quartiles)]
    return min((gap / max(spread, 1e-12) if gap > 0 else 0.0 for gap, spread in gaps), default=0.0)


@thresholds
class LIMITS:
    classes: float = 0.5  # left open: with the other conditions; wrong for one pattern in five and it is no less
    numbers: float = 0.1
    factor: float = 1.5  # of the next over the best, of classes that lie apart in it
    of_codes: float = 5.0  # the same where the next is of the same kind: votes, symptoms
    of_numbers: float = 10.0  # the next lag of a series leaves twice to four times as much open
    written: float = 0.4  # left open by a code that knows nothing but the class
    others_hang: float = 1.5  # over chance: else the table does not show who knows what; wine, of 142 patterns, has 1
    apart: float = 3.0  # iris' petals have 1.7, half a normal distribution 1.6, an equal one 2
    rounding: float = 1e-6  # of a correlation


def judged(found: Experiment, step: int = 0) -> Iterator[Finding]:
    """A feature that is, or was made of, the target."""
    numbers, name = found.numbers, found.place
    of_classes = "apart" in numbers
    factor = LIMITS.of_numbers if not of_classes else LIMITS.factor
    if of_classes and numbers["next_coded"]:
        factor = LIMITS.of_codes
    most = LIMITS.classes if of_classes else LIMITS.numbers
    why = [
        Criterion("left open by this feature alone", numbers["open"], "<", most),
        Criterion("by the next best, over it", numbers["next_open"] / max(numbers["open"], 1e-9), ">", factor),
    ]
    if of_classes:
        why.append(Criterion("distance of classes in it, over their spread", numbers["apart"], ">", LIMITS.apart))
    stands_out = all(each.holds for each in why)
    if not stands_out and not _is_written(numbers):
        return
    if stands_out:
        shown = (
            f"leaves {numbers['open']:.1%} of the target open, and no other feature under {numbers['next_open']:.1%}"
        )
        evidence = {"feature": name, "left open": numbers["open"], "left open by the next": numbers["next_open"]}
    else:
        why = _written(numbers)
        shown = (
            f"leaves {numbers['code_open']:.1%} of the target open, and where it fails no other feature is odd, though "
            "these hang together"
        )
        evidence = {"feature": name, "left open": numbers["code_open"]}
    explanation = (
        f"{name} alone {shown}: it is the target, or was only known with it. Where it is missing or unknown, as in "
        "use, the network has learned nothing."
    )
    todo = Remedy("drop_feature", f"take {name} out of the input, or what wrote the label there; then train again")
    yield Finding("target_leak", None, "warning", step, evidence, explanation, (todo,), decided_by=tuple(why))


def _written(numbers: Mapping[str, float]) -> list[Criterion]:
    """A code that was made from the label and is wrong here and there."""
    hangs, others = numbers.get("code_hangs", math.nan), numbers.get("others_hang", math.nan)
    return [
        Criterion("left open by this code alone", numbers.get("code_open", math.nan), "<", LIMITS.written),
        Criterion("what it has to do with others beyond the class, over chance", hangs, "<=", 1.0),
        Criterion("what others have to do with each other, over chance", others, ">", LIMITS.others_hang),
    ]


def _is_written(numbers: Mapping[str, float]) -> bool:
    return all(each.holds for each in _written(numbers))


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    return judged(found, subject.diagnosis.history[0].step)


@tried("leaking_features", order=21, brings=_brings)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject)


_asked = asks(QUESTION, "leaking_features")(lambda subject: _measured(read_once(subject)))
