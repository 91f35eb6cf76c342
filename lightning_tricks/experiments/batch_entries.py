"""batch_entries: does the loss depend on every entry of the batch?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.experiments.asking import Answer, LossFunction, asks, copied, same_draws
from lightning_tricks.experiments.patterns import Collation, NotAskedError, mapped
from lightning_tricks.experiments.registry import Subject, tried
from lightning_tricks.experiments.training import Training

QUESTION = "Does the loss depend on every entry of the batch?"
_SEED = 0


@asks(QUESTION)
def batch_entries(model: nn.Module | Training, batch: Any, loss_fn: LossFunction | None = None) -> Answer:
    """The loss with one entry of the batch at a time given to other patterns, in the mode that it trains in.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``.
        batch: One batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.

    Returns:
        Numbers: for every tensor of the batch with an axis of patterns, by its place or key, the change of the loss
        over the loss when it is permuted over the batch.

        How to read it: exactly 0: the entry is not used, or is the same for all patterns: masks, weights, lengths and
        ends of episodes that the step forgets; of the input or the targets, a loss that cannot teach anything. A change
        alone says nothing of which entries belong together.

    >>> step = lambda output, target: nn.functional.mse_loss(output, target["value"])
    >>> batch = torch.randn(16, 8), {"value": torch.randn(16, 1), "weight": torch.rand(16)}
    >>> batch_entries(nn.Linear(8, 1), batch, step).numbers["1.weight"]
    0.0
    """
    return _entries(copied(model, loss_fn), batch)


def _entries(training: Training, batch: Any, loader: Any = None) -> Answer:
    collation = Collation.of(batch, loader)
    found = [(path, x) for path, x in named_tensors(batch) if x.dim() and collation.axis(x) is not None]
    if collation.size is None or collation.size < 2 or not found:
        raise NotAskedError("it cannot be told which axis of the batch counts its patterns")
    order = torch.randperm(collation.size, generator=torch.Generator().manual_seed(_SEED))
    order = order.roll(1) if bool((order == torch.arange(collation.size)).all()) else order
    before, again = (_loss(training, batch) for _ in range(2))
    if before != again:
        raise NotAskedError("the same batch gives different losses")
    numbers: dict[str, float] = {}
    for path, tensor in found:
        axis = collation.axis(tensor)
        changed = tensor.index_select(axis or 0, order.to(tensor.device))
        if not torch.equal(changed, tensor):
            other = mapped(batch, lambda x, old=tensor, new=changed: new if x is old else x)
            numbers[path] = abs(_loss(training, other) - before) / max(abs(before), 1e-12)
    unused = [path for path, change in numbers.items() if change == 0]
    if unused:
        return Answer(f"not on {', '.join(unused)}", numbers)
    return Answer(f"yes, on all {len(numbers)} that differ between patterns", numbers)


def named_tensors(tree: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a batch by their places and keys."""
    if isinstance(tree, Tensor):
        yield path or "0", tree
    elif isinstance(tree, (dict, tuple, list)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from named_tensors(value, f"{path}.{key}".lstrip("."))


def _loss(training: Training, batch: Any) -> float:
    with same_draws():
        return float(training.loss(batch).detach())


@tried("batch_entries", order=6)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject.training.copy(), subject.batch, subject.data)


_asked = asks(QUESTION, "batch_entries")(_entries)
