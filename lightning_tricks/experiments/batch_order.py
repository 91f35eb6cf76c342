"""batch_order: do the batches of an epoch come sorted by their targets?"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import SequentialSampler

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding, Trait
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.diagnosis.rules.unshuffled_data import LIMITS as OF_TRAINING
from lightning_tricks.diagnosis.rules.unshuffled_data import SHUFFLE
from lightning_tricks.experiments.asking.asks import Answer, asks
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.asking.sampling import is_plain, spread_batches, untouched
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.model.batches import number_of_samples, tensors_in
from lightning_tricks.report.words import rounded

QUESTION = "Do the batches of an epoch come sorted by their targets?"
_BATCHES = 8


@asks(QUESTION)
def batch_order(data: Any) -> Answer:
    """The targets of the first batches of a loader beside those of batches drawn at random from its data set.

    Args:
        data: A loader over a data set with indices, which draws all of it alike.

    Returns:
        Numbers: of classes ``lacking``: 1 - entropy in a batch over that in a random one; of other targets ``within``:
        their variance in a batch over that in a random one.

        How to read it: lacking over .6 (two of ten classes) or within under .1: sorted; each class in turn drives the
        network to itself. What comes in the order of time may have .3.

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> data = TensorDataset(torch.randn(400, 3), torch.arange(400) // 100)
    >>> batch_order(DataLoader(data, batch_size=16)).numbers
    {'lacking': 0.946...}
    """
    if not is_plain(data):
        raise NotAskedError("the data are no loader that draws all of a data set alike")
    with untouched(data):
        came = list(itertools.islice(data, _BATCHES))
    return _compared(came, spread_batches(data, _BATCHES))


def _compared(first: Sequence[Any], random: Sequence[Any]) -> Answer:
    came, drawn = ([_targets(batch) for batch in batches] for batches in (first, random))
    if not came or any(each is None for each in (*came, *drawn)):
        raise NotAskedError("it is not known which entry of a batch are the targets")
    one, other = ([each for each in targets if each is not None] for targets in (came, drawn))
    if one[0].is_floating_point():
        within = _ratio(_variance, one, other)
        return Answer(f"{'yes' if within < LIMITS.within else 'no'}: {within:.2g} of the variance", {"within": within})
    lacking = 1 - _ratio(_entropy, one, other)
    told = "yes" if lacking > LIMITS.lacking else "no"
    text = f"{told}: batches lack {rounded(max(lacking, 0.0))} of the classes' entropy"
    return Answer(text, {"lacking": lacking})


def _targets(batch: Any) -> Tensor | None:
    """The last entry of a batch, one number a pattern."""
    found = [x for x in tensors_in(batch) if x.dim()]
    last = found[-1] if len(found) > 1 else None
    return last.flatten() if last is not None and last.numel() == len(last) == len(found[0]) else None


def _ratio(measure: Any, came: list[Tensor], drawn: list[Tensor]) -> float:
    whole = statistics.fmean(map(measure, drawn))
    return statistics.fmean(map(measure, came)) / whole if whole > 0 else math.nan


def _entropy(classes: Tensor) -> float:
    counts = torch.unique(classes, return_counts=True)[1].double()
    shares = counts / counts.sum()
    return float(-(shares * shares.log()).sum())


def _variance(values: Tensor) -> float:
    return float(values.double().var(correction=0))


@thresholds
class LIMITS:
    """Those of the rule that reads the targets step by step."""

    lacking: float = OF_TRAINING.lacking
    within: float = OF_TRAINING.within
    patterns: int = OF_TRAINING.patterns


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    """Of a loader that is told not to shuffle; whoever samples batches of one kind on purpose has a sampler."""
    why = (
        Criterion("1 - entropy of a batch's classes over that of a random one", _lacking(found), ">", LIMITS.lacking),
        Criterion("variance of a batch's targets over that of a random one", _within(found), "<", LIMITS.within),
    )
    decided = tuple(each for each in why if each.holds)
    told_so = type(subject.data.sampler) is SequentialSampler
    few = number_of_samples(subject.batch) < LIMITS.patterns
    if not decided or few or not told_so or subject.knows("unshuffled_data"):
        return
    step = subject.diagnosis.history[0].step
    explanation = (
        "The targets of a batch are nearly all the same, though those of the whole data set are not: the loader does "
        "not shuffle, and the data lie sorted. The network learns each kind in turn and forgets the others."
    )
    given = dict(found.numbers), explanation, (SHUFFLE,), (), frozenset([Trait.EXCUSES]), None, decided
    yield Finding("unshuffled_data", None, "warning", step, *given)


def _lacking(found: Experiment) -> float:
    return found.numbers.get("lacking", math.nan)


def _within(found: Experiment) -> float:
    return found.numbers.get("within", math.nan)


def _proves(found: Experiment, finding: Finding) -> bool:
    sorted_so = _lacking(found) > LIMITS.lacking or _within(found) < LIMITS.within
    return finding.problem == "unshuffled_data" and sorted_so


@tried("batch_order", order=7, wanted=lambda subject: is_plain(subject.data), brings=_brings, proves=_proves)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject.batches, subject.drawn)


_asked = asks(QUESTION, "batch_order")(_compared)
