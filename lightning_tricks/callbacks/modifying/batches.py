"""A LightningModule's own batches, and one pass of it over a batch that logs nothing and leaves its metrics alone."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from lightning_tricks._compat.lightning import has_forward
from lightning_tricks.model.batches import run_model


def run_on_batch(module: Any, batch: Any) -> Any:
    """Run a module on a batch: its ``forward`` with the first element, or its ``training_step`` where it has none.

    Raises:
        TypeError: Neither can be used; the message says what to give instead.
    """
    if has_forward(module) and isinstance(batch, (torch.Tensor, tuple, list)):
        return run_model(module, batch)
    if not getattr(module, "automatic_optimization", True):
        raise TypeError(
            f"{type(module).__name__} optimises manually, so its training_step cannot be run for its statistics alone: "
            "give forward=lambda module, batch: ..."
        )
    with _nothing_logged(module):
        return module.training_step(batch, 0)


class TrainingBatches:
    """The training batches of a Trainer on its device, from the start each time that they are iterated."""

    def __init__(self, trainer: Any, loader: Iterable[Any]) -> None:
        self._to_device = trainer.strategy.batch_to_device
        if isinstance(loader, DataLoader) and loader.persistent_workers:
            loader = _without_workers(loader)  # iterating it again would end the training's own pass over it
        self._loader = loader

    @classmethod
    def of(cls, trainer: Any) -> TrainingBatches | None:
        """Those of a training; None where there is no training data."""
        loader = trainer.train_dataloader
        if loader is None and trainer.datamodule is not None:
            with contextlib.suppress(Exception):  # a datamodule for tests only
                loader = trainer.datamodule.train_dataloader()
        return None if loader is None else cls(trainer, loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self._loader:
            yield self._to_device(batch)


def _without_workers(loader: DataLoader[Any]) -> DataLoader[Any]:
    if loader.batch_sampler is None:
        return DataLoader(loader.dataset, batch_size=None, sampler=loader.sampler, collate_fn=loader.collate_fn)
    return DataLoader(loader.dataset, batch_sampler=loader.batch_sampler, collate_fn=loader.collate_fn)


@contextlib.contextmanager
def _nothing_logged(module: Any) -> Iterator[None]:
    """A block in which nothing is logged and metrics count nothing."""
    metrics = [(child, copy.deepcopy(child.__dict__)) for child in module.modules() if hasattr(child, "metric_state")]
    silenced = ("log", "log_dict")
    hidden = {name: module.__dict__[name] for name in silenced if name in module.__dict__}
    for name in silenced:
        object.__setattr__(module, name, _log_nothing)
    try:
        yield
    finally:
        for name in silenced:
            object.__delattr__(module, name)
        module.__dict__.update(hidden)
        for metric, state in metrics:
            metric.__dict__.clear()
            metric.__dict__.update(state)


def _log_nothing(*args: Any, **kwargs: Any) -> None:
    """In the place of ``log``."""
