"""same_sample_twice: does the data set give the same sample for the same index?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.experiments.asking.asks import Answer, asks
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.asking.sampling import untouched
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.model.batches import tensors_in

_ASKED = 8  # indices, spread over the data set


@asks("Does the data set give the same sample for the same index?")
def same_sample_twice(data: Any) -> Answer:
    """Reads a few indices twice, in another order the second time, and compares.

    Args:
        data: A data set with indices, or a loader of one.

    Returns:
        Numbers: of the ``asked`` indices how many ``differ``, and in how many of these the last entry, as a rule the
        target, differs (``targets_differ``); ``change``: the largest difference over the size of the sample.

        How to read it: with augmentation samples differ by right. Without, the data set changes what it keeps, such as
        scaling in place, which grows with every epoch. Targets that differ are drawn anew, or read from elsewhere.

    >>> from torch.utils.data import TensorDataset
    >>> print(same_sample_twice(TensorDataset(torch.randn(20, 3), torch.arange(20))))
    same_sample_twice: Does the data set give the same sample for the same index? yes: all 8 that were asked
    """
    dataset: Any = getattr(data, "dataset", data)
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")) or isinstance(
        dataset, (tuple, list, dict)
    ):
        raise NotAskedError("the data are no data set with indices")
    indices = sorted({int(i) for i in torch.linspace(0, len(dataset) - 1, min(_ASKED, len(dataset))).round()})
    with untouched(data):
        first = {i: _copied(dataset[i]) for i in indices}
        again = {i: _copied(dataset[i]) for i in reversed(indices)}
    changes = {i: _change(first[i], again[i]) for i in indices}
    differ = [i for i, each in changes.items() if any(change > 0 for change in each)]
    targets = sum(len(changes[i]) > 1 and changes[i][-1] > 0 for i in differ)
    largest = max((change for each in changes.values() for change in each), default=0.0)
    numbers = {"asked": float(len(indices)), "differ": float(len(differ)), "targets_differ": float(targets)}
    numbers["change"] = largest
    if not differ:
        return Answer(f"yes: all {len(indices)} that were asked", numbers)
    of_targets = f", the target in {targets} of them" if targets else ""
    return Answer(f"{len(differ)} of {len(indices)} differ, by up to {largest:.3g} of their size{of_targets}", numbers)


def _copied(sample: Any) -> list[Tensor]:
    parts = sample if isinstance(sample, (tuple, list)) else [sample]
    numbers = [torch.as_tensor(x) if isinstance(x, (int, float)) or hasattr(x, "__array__") else x for x in parts]
    return [tensor.detach().clone() for tensor in tensors_in(numbers)]


def _change(one: list[Tensor], other: list[Tensor]) -> list[float]:
    if [x.shape for x in one] != [x.shape for x in other]:
        return [1.0]
    return [_difference(x.double(), y.double()) for x, y in zip(one, other, strict=True)]


def _difference(x: Tensor, y: Tensor) -> float:
    if torch.equal(x, y) or not x.numel():
        return 0.0
    size = float(x.square().mean().sqrt())
    return float((x - y).square().mean().sqrt()) / size if size else 1.0


@tried("same_sample_twice", order=7, wanted=lambda subject: hasattr(subject.data, "dataset"))
def _in_checkup(subject: Subject) -> Experiment:
    return same_sample_twice(subject.data)
