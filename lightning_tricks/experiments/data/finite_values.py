"""finite_values: do patterns hold NaN or infinite numbers, and does the loss of those become one?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import default_collate

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy
from lightning_tricks.experiments.asking.asks import Answer, asks
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.asking.sampling import untouched
from lightning_tricks.experiments.data.patterns.examples import examples_of, listed
from lightning_tricks.experiments.data.patterns.neighbours import Data, read_once
from lightning_tricks.experiments.data.patterns.reading import Patterns, again, items
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.model.batches import tensors_in

QUESTION = "Are all numbers of the data finite?"


@asks(QUESTION)
def finite_values(data: Any, val_data: Any = None) -> Answer:
    """Patterns whose input or target is NaN or infinite somewhere.

    Args:
        data: A loader, a data set, a LightningDataModule, an iterable of batches, or one batch.
        val_data: The same for validation.

    Returns:
        Numbers: ``patterns`` that were read, ``not_finite`` of the training and ``not_finite_in_validation``.

        How to read it: one such pattern is enough to make every weight NaN, in whichever step it comes, unless the
        network or the loss leaves it out; a checkup tries that.

    >>> import torch
    >>> x = torch.randn(50, 4)
    >>> x[7, 2] = float("nan")
    >>> finite_values((x, torch.zeros(50))).answer
    '1 of 50 hold NaN or infinite numbers: 7'
    """
    return _counted(Data(data, val_data))


def _counted(data: Data) -> Answer:
    broken = places_in(data.train)
    numbers = {"patterns": float(len(data.train)), "not_finite": float(len(broken))}
    text = f"in all {len(data.train)} patterns"
    if len(broken):
        text = f"{len(broken)} of {len(data.train)} hold NaN or infinite numbers: {listed(data.train, broken)}"
    if data.validation is not None:
        of_validation = places_in(data.validation)
        numbers["not_finite_in_validation"] = float(len(of_validation))
        if len(of_validation):
            text += f"; {len(of_validation)} for validation: {listed(data.validation, of_validation)}"
    return Answer(text, numbers, examples=examples_of(data.train, ((int(i), "not finite") for i in broken)))


def places_in(patterns: Patterns) -> np.ndarray:
    """Of those that hold NaN or infinity."""
    bad = np.zeros(len(patterns), bool)
    for column in (*patterns.inputs, *(() if patterns.target is None else (patterns.target,))):
        bad |= ~column.values.reshape(len(patterns), -1).isfinite().all(1).numpy()
    return np.flatnonzero(bad)


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    """Where the loss of such patterns is no number: not of missing values that are left out."""
    if not found.numbers["not_finite"] or subject.knows("non_finite"):
        return
    train = read_once(subject).train
    broken = places_in(train)
    try:
        loss = subject.training.copy().evaluate([_batch_with(subject.data, train, broken)])
    except NotAskedError:
        return
    if math.isfinite(loss):
        return
    numbers = listed(train, broken)
    explanation = (
        f"{len(broken)} of {len(train)} training patterns hold NaN or infinite numbers, and the loss of a batch with "
        "one of them is none either. In the step in which it comes every weight becomes NaN."
    )
    evidence = {"patterns": len(broken), f"examples, by their {train.numbering}": numbers}
    todo = Remedy("check_data", f"drop or fill in what is NaN or Inf in the data: patterns {numbers}")
    why = (Criterion("patterns that are not finite", len(broken), ">", 0),)
    step = subject.diagnosis.history[0].step
    yield Finding("non_finite", None, "critical", step, evidence, explanation, (todo,), decided_by=why)


def _batch_with(data: Any, patterns: Patterns, places: np.ndarray) -> Any:
    """A batch that holds one of them."""
    if patterns.of_data_set:
        collate = getattr(data, "collate_fn", default_collate)
        others = np.setdiff1d(np.arange(len(patterns)), places)[:3]
        with untouched(data):
            return collate(items(patterns.source, patterns.index[[places[0], *others]]))
    with untouched(data):
        for batch in again(data):
            if not all(map(_is_finite, tensors_in(batch))):
                return batch
    raise NotAskedError("they do not come again")


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


@tried("finite_values", order=19, brings=_brings)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject)


_asked = asks(QUESTION, "finite_values")(lambda subject: _counted(read_once(subject)))
