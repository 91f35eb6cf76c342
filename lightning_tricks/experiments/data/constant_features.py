"""constant_features: which input features are the same for every pattern?"""

from __future__ import annotations

from typing import Any

import torch

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.experiments.asking.asks import Answer, asks
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.data.patterns.features import table_of
from lightning_tricks.experiments.data.patterns.neighbours import Data, read_once
from lightning_tricks.experiments.preflight.patterns import NotAskedError

QUESTION = "Which input features are the same for every pattern?"
_NAMED = 8
_FEWEST = 16  # patterns


@asks(QUESTION)
def constant_features(data: Any, val_data: Any = None) -> Answer:
    """Features with one value in all patterns that were read, and those of them that vary in validation.

    Args:
        data: A loader, a data set, a LightningDataModule, an iterable of batches, or one batch.
        val_data: The same for validation.

    Returns:
        Numbers: ``features``, how many of them are ``constant``, and how many of these are not so in validation
        (``vary_in_validation``).

        How to read it: the border of images, or a column that was lost on the way. What is constant in the training and
        varies in validation has weights that were never trained.

    >>> x = torch.randn(50, 4)
    >>> x[:, 3] = 1.0
    >>> constant_features(x).answer
    '1 of 4: 0[:, 3]'
    """
    return _counted(Data(data, val_data))


def _counted(data: Data) -> Answer:
    if len(data.train) < _FEWEST:
        raise NotAskedError("too few patterns")
    table, names = table_of(data.train)
    constant = (table == table[:1]).all(0)
    numbers = {"features": float(len(names)), "constant": float(constant.sum())}
    which = [names[k] for k in constant.nonzero().flatten().tolist()]
    text = f"none: all {len(names)} vary"
    if which:
        text = f"{len(which)} of {len(names)}: {', '.join(which[:_NAMED])}{', ...' if len(which) > _NAMED else ''}"
    if data.validation is not None:
        other = table_of(data.validation)[0]
        if other.shape[1] == len(constant):
            vary = constant & (other != table[:1]).any(0)
            numbers["vary_in_validation"] = float(torch.as_tensor(vary).sum())
            text += f"; {int(vary.sum())} of them vary in validation" if bool(vary.any()) else ""
    return Answer(text, numbers)


@tried("constant_features", order=25)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject)


_asked = asks(QUESTION, "constant_features")(lambda subject: _counted(read_once(subject)))
