"""classes: which there are, how often, and whether validation numbers them alike?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.experiments.asking.asks import Answer, asks
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.data.patterns.examples import examples_of, listed
from lightning_tricks.experiments.data.patterns.neighbours import Data, read_once
from lightning_tricks.experiments.preflight.patterns import NotAskedError

QUESTION = "Which classes are there, and does validation number them alike?"
_MOST = 12  # classes whose shares are written out
_VOTES = 5  # neighbours


@asks(QUESTION)
def classes(data: Any, val_data: Any = None) -> Answer:
    """Counts of classes, those that only validation has, and what training neighbours say of validation's numbers.

    Args:
        data: A loader, a data set, a LightningDataModule, an iterable of batches, or one batch ``(x, y)``.
        val_data: The same for validation.

    Returns:
        Validation patterns of classes that the training lacks or numbers otherwise are ``examples``. Numbers:
        ``classes``; ``most`` and ``least``: the shares of the most and the least frequent one; ``absent``:
        whole numbers between the smallest and the largest that no pattern has; ``runs``: how many times fewer changes
        of class there are from pattern to pattern than in random order, 1 for random; of validation ``unknown``:
        patterns of a class that the training lacks, ``shared``: those of a class that both have, ``alike``: how often
        the nearest training patterns have the class of a validation pattern, and ``renumbered``: how often, if its
        classes are numbered otherwise, in the best way.

        How to read it: unknown classes beside shared ones are a split that lost them, or numbers that begin elsewhere.
        Renumbered far over alike: each folder was numbered by itself.

    >>> import torch
    >>> found = classes((torch.randn(90, 2), torch.arange(90) % 3), (torch.randn(40, 2), torch.arange(40) % 4))
    >>> found.numbers["classes"], found.numbers["unknown"]
    (3.0, 10.0)
    """
    return _counted(Data(data, val_data))


def _counted(data: Data) -> Answer:
    if data.classes is None:
        raise NotAskedError("the targets are no classes")
    names, counts = np.unique(data.classes, return_counts=True)
    shares = counts / counts.sum()
    numbers = {"classes": len(names), "most": shares.max(), "least": shares.min()}
    numbers["absent"] = names[-1] - names[0] + 1 - len(names)
    numbers["runs"] = _runs(data.classes, shares)
    text = f"{len(names)}, with {shares.min():.3g} to {shares.max():.3g} of the patterns"
    own, shown = data.validation_classes, list[tuple[int, str]]()
    if own is not None:
        unknown = ~np.isin(own, names)
        numbers |= {"unknown": unknown.sum(), "shared": (~unknown).sum()}
        shown += [(int(i), f"of class {own[i]}, which the training lacks") for i in np.flatnonzero(unknown)]
        if unknown.any():
            which = ", ".join(map(str, np.unique(own[unknown])[:_MOST]))
            text += f"; {unknown.sum()} of {len(own)} for validation have others: {which}"
        renamed = renumbering(data)
        if renamed is not None:
            numbers |= {"alike": renamed[0], "renumbered": renamed[1]}
            others = [(int(np.flatnonzero(own == a)[0]), a, b) for a, b in renamed[2].items()]
            shown += [(i, f"of class {a}, training patterns like it of {b}") for i, a, b in others]
    examples = [] if data.validation is None else examples_of(data.validation, shown, "validation")
    return Answer(text, {name: float(value) for name, value in numbers.items()}, examples=examples)


def _runs(classes: np.ndarray, shares: np.ndarray) -> float:
    """Changes expected of patterns in random order, over those that are; in the order in which they were read."""
    expected = float(1 - np.square(shares).sum()) * (len(classes) - 1)
    return expected / max(int((classes[1:] != classes[:-1]).sum()), 1)


def renumbering(data: Data) -> tuple[float, float, dict[int, int]] | None:
    """How often neighbours agree with validation's classes, how often with the best renumbering of them, and which.

    None where nothing can be told: no neighbours, or classes that are not one to one.
    """
    own, known = data.validation_classes, data.classes
    if own is None or known is None:
        return None
    try:
        found = data.of_validation
    except NotAskedError:
        return None
    names = np.union1d(known, own)
    votes = np.searchsorted(names, known)[found.index[:, :_VOTES]]
    said = np.stack([(votes == c).sum(1) for c in range(len(names))], 1).argmax(1)
    given = np.searchsorted(names, own[found.asked])
    table = np.zeros((len(names), len(names)), int)
    np.add.at(table, (given, said), 1)
    there = np.flatnonzero(table.sum(1))
    best = table.argmax(1)
    if len(set(best[there].tolist())) < len(there):
        return None
    alike, renumbered = np.diag(table).sum() / len(given), table[there, best[there]].sum() / len(given)
    changed = {int(names[c]): int(names[best[c]]) for c in there if best[c] != c}
    return float(alike), float(renumbered), changed


@thresholds
class LIMITS:
    unknown: float = 0.01  # of the validation patterns
    least: float = 2.0
    renumbered: float = 0.7  # agreement of neighbours: under it they know too little
    gain: float = 0.3  # over the agreement as the classes are numbered


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    if not subject.knows("validation_mismatch"):
        yield from judged(found, read_once(subject), subject.diagnosis.history[0].step)


def judged(found: Experiment, data: Data, step: int = 0) -> Iterator[Finding]:
    """Classes that validation numbers otherwise, or that only validation has."""
    yield from list(_renumbered(found, data, step)) or list(_unknown(found, data, step))


def _renumbered(found: Experiment, data: Data, step: int) -> Iterator[Finding]:
    numbers = found.numbers
    alike, renumbered = numbers.get("alike", math.nan), numbers.get("renumbered", math.nan)
    why = (
        Criterion("agreement with neighbours if renumbered", renumbered, ">", LIMITS.renumbered),
        Criterion("what that gains", renumbered - alike, ">", LIMITS.gain),
    )
    renamed = renumbering(data) if all(each.holds for each in why) else None
    if renamed is None or not renamed[2]:
        return
    if numbers["shared"] == 0 and len({b - a for a, b in renamed[2].items()}) > 1:
        return  # other classes on purpose, of which each is most like one of the training
    shown = ", ".join(f"{a}: {b}" for a, b in list(renamed[2].items())[:_MOST])
    shift = {b - a for a, b in renamed[2].items()}
    how = f"all by {shift.pop()}" if len(shift) == 1 else f"{{{shown}}}"
    explanation = (
        f"Training patterns next to validation patterns have their class in {alike:.0%}, and in {renumbered:.0%} if "
        f"the classes of validation are renumbered ({how}): the two were numbered apart."
    )
    evidence = {"agreement": alike, "agreement if renumbered": renumbered, "from validation to training": shown}
    todo = Remedy(
        "same_classes", "number the classes once: class_to_idx of the training for both, or order = sorted(names)"
    )
    yield Finding("validation_mismatch", None, "warning", step, evidence, explanation, (todo,), decided_by=why)


def _unknown(found: Experiment, data: Data, step: int) -> Iterator[Finding]:
    numbers, own, known = found.numbers, data.validation_classes, data.classes
    if own is None or known is None or not data.train.complete or data.validation is None:
        return
    why = (
        Criterion(
            "share of validation whose class the training lacks",
            numbers["unknown"] / len(own),
            ">",
            LIMITS.unknown,
        ),
        Criterion("such patterns", numbers["unknown"], ">=", LIMITS.least),
        Criterion("patterns of a class that both have", numbers["shared"], ">", numbers["unknown"]),
    )
    if not all(each.holds for each in why):
        return  # disjoint classes are so on purpose
    lost = np.unique(own[~np.isin(own, known)])
    shown = ", ".join(map(str, lost[:_MOST]))
    explanation = (
        f"{int(numbers['unknown'])} of {len(own)} validation patterns have a class that no training pattern has "
        f"({shown}): nothing can be learned of it, and the validation loss counts it."
    )
    places = np.flatnonzero(np.isin(own, lost))
    evidence = {"classes": shown, f"examples, by their {data.validation.numbering}": listed(data.validation, places)}
    todo = Remedy(
        "stratify", "split every class alike: train_test_split(..., stratify=y); or the labels begin elsewhere"
    )
    yield Finding("validation_mismatch", None, "warning", step, evidence, explanation, (todo,), decided_by=why)


@tried("classes", order=23, brings=_brings)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject)


_asked = asks(QUESTION, "classes")(lambda subject: _counted(read_once(subject)))
