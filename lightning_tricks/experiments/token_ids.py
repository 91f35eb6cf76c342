"""token_ids: do the ids of training and validation fit the embedding, and do they know each other?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy
from lightning_tricks.experiments.asking.asks import Answer, LossFunction, asks, copied
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.asking.sampling import spread_batches
from lightning_tricks.experiments.data.patterns.fields import columns_of
from lightning_tricks.experiments.data.patterns.neighbours import Data, read_once
from lightning_tricks.experiments.data.patterns.reading import Patterns
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training import Training
from lightning_tricks.model.batches import number_of_samples
from lightning_tricks.report.words import rounded

QUESTION = "Do the ids fit the embedding, in training and validation?"
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@asks(QUESTION)
def token_ids(
    model: nn.Module | Training, data: Any, loss_fn: LossFunction | None = None, val_data: Any = None
) -> Answer:
    """Which rows of an embedding the training ever reads, and which ids of validation are outside of it or new.

    An embedding is judged where it is given an entry of the batch as it is.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``.
        data: A loader, a data set, an iterable of batches, or one batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.
        val_data: The same for validation.

    Returns:
        Numbers: ``rows`` of the embeddings, ``unread``: those that no training pattern reads; of validation
        ``outside``: ids that no row stands for, and ``new``: the share of ids whose row was never trained.

        How to read it: outside is an error as soon as validation comes there. Unread rows stay as they began; many new
        ids are those of another vocabulary.

    >>> net = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 2))
    >>> batch = torch.tensor([[1, 2, 3], [4, 2, 0]]), torch.tensor([0, 1])
    >>> token_ids(net, batch, nn.functional.cross_entropy).numbers
    {'rows': 10.0, 'unread': 5.0}
    """
    training = copied(model, loss_fn)
    fed = _fed(training, spread_batches(data, 1)[0])
    return _counted(Data(data, val_data), fed)


def _fed(training: Training, batch: Any) -> dict[str, int]:
    """The entries of the batch that an embedding is given, each with its number of rows."""
    given: list[tuple[int, Tensor]] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = args[0] if args else kwargs.get("input")
        if isinstance(ids, Tensor) and isinstance(module, _EMBEDDINGS):
            given.append((module.num_embeddings, ids.detach().cpu()))

    with contextlib.ExitStack() as stack:
        for module in training.module.modules():
            if isinstance(module, _EMBEDDINGS):
                stack.callback(module.register_forward_pre_hook(note, with_kwargs=True).remove)
        training.evaluate([batch])
    columns = columns_of(batch, number_of_samples(batch))
    return {
        column.name: rows
        for column in columns
        for rows, ids in given
        if ids.numel() == column.values.numel() and torch.equal(ids.flatten(), column.values.flatten().to(ids.dtype))
    }


def _counted(data: Data, fed: dict[str, int]) -> Answer:
    if not fed:
        raise NotAskedError("no embedding is given an entry of the batch as it is")
    rows = sum(fed.values())
    read = {name: _ids(data.train, name).unique() for name in fed}
    unread = rows - sum(int(((ids >= 0) & (ids < fed[name])).sum()) for name, ids in read.items())
    numbers = {"rows": float(rows), "unread": float(unread)}
    text = f"{rows - unread} of {rows} rows are read" + (
        "" if data.train.complete else " by the patterns that were read"
    )
    if data.validation is not None:
        others = {name: _ids(data.validation, name) for name in fed}
        outside = sum(int(((ids < 0) | (ids >= fed[name])).sum()) for name, ids in others.items())
        new = sum(int((~torch.isin(ids, read[name])).sum()) for name, ids in others.items())
        numbers |= {"outside": float(outside), "new": new / max(sum(len(ids) for ids in others.values()), 1)}
        text += f"; of validation {outside} ids are outside, {rounded(numbers['new'], '.1%')} new"
    return Answer(text, numbers)


def _ids(patterns: Patterns, name: str) -> Tensor:
    columns = [*patterns.inputs, *([] if patterns.target is None else [patterns.target])]
    found = next((column.values for column in columns if column.name == name), None)
    if found is None:
        raise NotAskedError("validation batches are built otherwise than those of the training")
    return found.long().flatten()


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    """An id without a row: an error on a CPU, an assertion of the device on a GPU."""
    outside = found.numbers.get("outside", 0.0)
    if outside:
        why = Criterion("ids of validation that no row of the embedding stands for", outside, ">", 0.0)
        explanation = (
            f"{int(outside)} ids of the validation data are no row of the embedding: validation fails when it comes to "
            "them, with an IndexError or an assertion of the device. The two were numbered by different vocabularies."
        )
        todo = Remedy(
            "same_vocabulary", "one vocabulary for both, an id for unknown words, num_embeddings=len(vocabulary)"
        )
        step = subject.diagnosis.history[0].step
        given = dict(found.numbers), explanation, (todo,)
        yield Finding("validation_mismatch", None, "critical", step, *given, decided_by=(why,))


def _has_embedding(subject: Subject) -> bool:
    return any(isinstance(module, _EMBEDDINGS) for module in subject.model.modules())


@tried("token_ids", order=27, wanted=_has_embedding, brings=_brings)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject)


_asked = asks(QUESTION, "token_ids")(
    lambda subject: _counted(read_once(subject), _fed(subject.training.copy(), subject.batch))
)
