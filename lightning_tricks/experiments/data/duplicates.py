"""duplicates: which patterns are there twice, in training and in validation, or with two labels?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from lightning_tricks.diagnosis.experiment import Example, Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity, Trait
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.experiments.asking.asks import Answer, asks
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.data.patterns.copies import (
    are_windows,
    far_nearer,
    keys_of,
    nearly_met,
    shared_windows,
)
from lightning_tricks.experiments.data.patterns.examples import examples_of, listed
from lightning_tricks.experiments.data.patterns.neighbours import NEAREST, Data, read_once
from lightning_tricks.experiments.preflight.patterns import NotAskedError

QUESTION = "Which patterns are there more than once?"


@asks(QUESTION)
def duplicates(data: Any, val_data: Any = None) -> Answer:
    """Equal and nearly equal inputs within the training data, and in training and validation.

    Inputs of few different columns meet by chance: those are told from copies by near misses, which chance gives more
    of. Near copies are those whose nearest pattern is nearer than any chance has it among so many.

    Args:
        data: A loader, a data set, a LightningDataModule, an iterable of batches, or one batch ``(x, y)``.
        val_data: The same for validation.

    Returns:
        Numbers: ``patterns``; ``repeated``: of these, how many are there already; ``nearly_repeated``: how many are
        another one with something added (of 20,000 a quarter is asked, at most); ``drawn``: how often a sampler of
        your own draws one at most; ``copied``: patterns with a copy that no chance explains; ``contradicting``: those
        of another class than most of their copies; of validation ``validation``, how many there are, ``across``: copies
        of training patterns, ``near``: near ones, ``windows``: those that share half of themselves with one,
        ``by_chance``: met by near misses, and ``same``: whether all of both are the same.

        How to read it: repeated patterns may be there on purpose. Across the split they make validation say how well
        the training is known by heart.

    >>> import torch
    >>> x = torch.randn(100, 8)
    >>> duplicates((torch.cat([x, x[:5]]), torch.arange(105) % 2), (x[:10], torch.zeros(10))).numbers["across"]
    10.0
    """
    return _counted(Data(data, val_data)).answer


@dataclasses.dataclass(frozen=True)
class _Counted:
    answer: Answer
    contradicting: list[int] = dataclasses.field(default_factory=list)  # places in the training
    twins: dict[int, int] = dataclasses.field(default_factory=dict)  # place in the validation, place in the training


def _counted(data: Data) -> _Counted:
    train, keys = data.train, keys_of(data.train)
    _, first, group, count = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    several = count[group] > 1
    copied = np.zeros(len(train), bool)
    if several.any():
        copied[several] = ~nearly_met(train.some(several), train)
    wrong = _contradicting(data, group, copied)
    numbers = {"patterns": float(len(train)), "repeated": float(len(train) - len(count)), "copied": float(copied.sum())}
    numbers["contradicting"] = float(len(wrong))
    text = f"{len(train) - len(count)} of {len(train)} for training"
    near = _nearly_repeated(data) & ~several
    numbers["nearly_repeated"] = float(near.sum())
    text += f", {near.sum()} nearly ({listed(train, np.flatnonzero(near))}: {train.numbering})" if near.any() else ""
    if train.drawn is not None:
        numbers["drawn"] = float(train.drawn.max())
        text += f", drawn up to {train.drawn.max()} times"
    shown: list[Example] = []
    if wrong:
        text += f", {len(wrong)} with another label ({listed(train, wrong)}: {train.numbering})"
        pairs = ((i, f"labelled {data.classes[i]}, its copy {data.classes[_other(i, group, data)]}") for i in wrong)  # type: ignore[index]
        shown += examples_of(train, pairs)
    twins: dict[int, int] = {}
    if data.validation is not None:
        twins, more, said = _across(data, keys, first)
        numbers |= more
        text += said
        pairs = ((i, f"training {train.index[j]}") for i, j in twins.items())
        shown += examples_of(data.validation, pairs, "validation")
    return _Counted(Answer(text, numbers, examples=shown), wrong, twins)


def _nearly_repeated(data: Data) -> np.ndarray:
    """Training patterns that nearly are another one, of those that were asked."""
    train, near = data.train, np.zeros(len(data.train), bool)
    if len(train) > NEAREST and not are_windows(train) and any(column.kind != "tokens" for column in train.inputs):
        found = data.of_training
        near[found.asked[far_nearer(found)]] = True
    return near


def _contradicting(data: Data, group: np.ndarray, copied: np.ndarray) -> list[int]:
    """Patterns of another class than the most of their copies; where these are equally many, all but the first."""
    if data.classes is None or not copied.any():
        return []
    found = []
    places = np.flatnonzero(copied)
    for members in np.split(places[np.argsort(group[places], kind="stable")], _borders(np.sort(group[places]))):
        kinds, first, many = np.unique(data.classes[members], return_index=True, return_counts=True)
        if len(kinds) > 1:
            usual = kinds[np.lexsort((first, -many))[0]]
            found += members[data.classes[members] != usual].tolist()
    return sorted(found)


def _borders(groups: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.diff(groups)) + 1


def _other(i: int, group: np.ndarray, data: Data) -> int:
    assert data.classes is not None
    same = np.flatnonzero(group == group[i])
    return int(next(j for j in same if data.classes[j] != data.classes[i]))


def _across(data: Data, keys: np.ndarray, first: np.ndarray) -> tuple[dict[int, int], dict[str, float], str]:
    """Validation patterns that are training patterns, or nearly."""
    train, validation = data.train, data.validation
    assert validation is not None
    if len(validation.inputs) != len(train.inputs):
        raise NotAskedError("validation inputs have another shape than those of the training")
    own, known = keys_of(validation), keys[first]
    place = np.searchsorted(known, own).clip(max=len(known) - 1)
    equal = known[place] == own
    met = nearly_met(validation, train)
    exact = equal & ~met
    near = np.zeros(len(validation), bool)
    found = data.of_validation
    if not are_windows(train) and any(column.kind != "tokens" for column in train.inputs):
        near[found.asked[far_nearer(found)]] = True
    near &= ~equal & ~met
    windows = np.zeros(len(validation), bool)
    if not equal.all():
        windows[~equal] = shared_windows(validation.some(~equal), train)
    twins = {int(i): int(first[place[i]]) for i in np.flatnonzero(exact)}
    nearest = dict(zip(found.asked.tolist(), found.index[:, 0].tolist(), strict=True))
    twins |= {int(i): nearest[int(i)] for i in np.flatnonzero(near)}
    numbers = {"validation": len(validation), "across": exact.sum(), "near": near.sum(), "windows": windows.sum()}
    numbers["by_chance"] = met.sum()
    numbers["same"] = float(equal.all() and np.isin(known, own).all())
    said = f"; {exact.sum()} of {len(validation)} for validation are trained on"
    said += f", {near.sum()} nearly" if near.any() else ""
    said += f", {windows.sum()} overlap" if windows.any() else ""
    if twins:
        said += f" ({listed(validation, twins)}: {validation.numbering})"
    return twins, {name: float(value) for name, value in numbers.items()}, said


@thresholds
class LIMITS:
    """Shares of the patterns; fewer are told and are no alarm."""

    across: float = 0.01
    windows: float = 0.5  # at the border of a split in time some always overlap
    contradicting: float = 0.01
    least: float = 3.0  # patterns: fewer are an accident
    least_across: float = 2.0
    repeated: float = (
        0.5  # where most patterns are there several times, repetition is the design, and so are its labels
    )


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    counted, data = subject.notes["duplicates"], read_once(subject)
    yield from across(found, data, counted.twins, subject.diagnosis.history[0].step)
    yield from contradicting(found, data, counted.contradicting, subject.diagnosis.history[0].step)


def across(found: Experiment, data: Data, twins: dict[int, int], step: int = 0) -> Iterator[Finding]:
    """Validation patterns that were trained on."""
    numbers, validation = found.numbers, data.validation
    if validation is None:
        return
    copies = numbers["across"] + numbers["near"]
    of_copies = Criterion("share of validation that was trained on", copies / len(validation), ">", LIMITS.across)
    of_windows = Criterion("share that overlaps", numbers["windows"] / len(validation), ">", LIMITS.windows)
    by_chance = Criterion(
        "copies over what meets by chance", copies, ">", max(numbers["by_chance"], LIMITS.least_across - 1)
    )
    why = [of_copies, by_chance] if of_copies.holds and by_chance.holds else [of_windows] if of_windows.holds else []
    if not why:
        return
    count = int(copies if why[0] is of_copies else numbers["windows"])
    explanation = (
        f"{count} of {len(validation)} validation patterns are training patterns, equal or nearly, or overlap with "
        "one: the validation loss says how well these are known by heart, not how well the network does on others."
    )
    evidence: dict[str, Any] = {"of validation patterns": len(validation), "trained on": count}
    if twins:
        evidence[f"validation patterns, by their {validation.numbering}"] = listed(validation, twins)
        evidence[f"training patterns, by their {data.train.numbering}"] = listed(data.train, twins.values())
    if why[0] is of_windows:
        todo = Remedy(
            "split_by_time", "split in time, before windows are cut: series[:n] and series[n:], not at random"
        )
    else:
        kept = f"Subset(val_set, [i for i in range({len(validation)}) if i not in ({listed(validation, twins)})])"
        todo = Remedy(
            "split_by_group", f"split by what a pattern was made of (GroupShuffleSplit), or leave out: {kept}"
        )
    severity: Severity = "info" if numbers["same"] else "warning"  # all of it on purpose, as of one graph
    yield Finding("validation_mismatch", None, severity, step, evidence, explanation, (todo,), decided_by=tuple(why))


def contradicting(found: Experiment, data: Data, places: list[int], step: int = 0) -> Iterator[Finding]:
    """Equal inputs with labels that cannot all be right."""
    count = found.numbers["contradicting"]
    why = (
        Criterion("share of patterns whose copy has another label", count / len(data.train), ">", LIMITS.contradicting),
        Criterion("such patterns", count, ">=", LIMITS.least),
        Criterion("share of patterns with a copy", found.numbers["copied"] / len(data.train), "<", LIMITS.repeated),
    )
    if not all(each.holds for each in why):
        return
    explanation = (
        f"{int(count)} of {len(data.train)} training patterns have a copy with another label: no network can answer "
        "both, and one of the two labels is wrong."
    )
    numbers = listed(data.train, places)
    evidence = {why[0].name: why[0].value, f"examples, by their {data.train.numbering}": numbers}
    todo = Remedy("clean_labels", f"look at their labels, and keep one of each: {numbers}")
    traits = frozenset({Trait.WRONG_LABELS})
    yield Finding(
        "target_mismatch", None, "warning", step, evidence, explanation, (todo,), traits=traits, decided_by=why
    )


@tried("duplicates", order=20, brings=_brings)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject)


def _of_subject(subject: Subject) -> Answer:
    subject.notes["duplicates"] = _counted(read_once(subject))
    answer: Answer = subject.notes["duplicates"].answer
    return answer


_asked = asks(QUESTION, "duplicates")(_of_subject)
