"""Lightning under whichever of its names a program uses; what is private of its Trainer stands in ``trainer.py``."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import CombinedLoader, rank_zero_only

from lightning_tricks._compat.messages import warn

if TYPE_CHECKING:
    from lightning.pytorch import Callback

    _TREES: tuple[Any, ...] = (pl,)
elif importlib.util.find_spec("pytorch_lightning") is not None:
    # `lightning` and `pytorch_lightning` are two class trees; a callback that is of both works in both Trainers.
    import pytorch_lightning

    class Callback(pl.Callback, pytorch_lightning.Callback):
        """A callback for the Trainers of ``lightning`` and of ``pytorch_lightning``."""

    _TREES = (pl, pytorch_lightning)
else:
    from lightning.pytorch import Callback

    _TREES = (pl,)

LightningModule = pl.LightningModule
LightningDataModule = pl.LightningDataModule
Trainer = pl.Trainer

__all__ = [
    "Callback",
    "LightningDataModule",
    "LightningModule",
    "Trainer",
    "configures_optimizers",
    "fit_quietly",
    "has_forward",
    "is_lightning_module",
    "loader_of",
    "move_data_to_device",
    "rank_and_world",
    "rank_zero_warn",
    "silent_logger",
    "warn_once",
    "without_gradient_exchange",
]

_said: set[str] = set()


def rank_and_world(trainer: Trainer | None) -> tuple[int, int]:
    """Which process this is, of how many; one alone without a Trainer."""
    return (0, 1) if trainer is None else (int(trainer.global_rank), int(trainer.world_size))


def without_gradient_exchange(trainer: Trainer) -> None:
    """Keep DistributedDataParallel from exchanging gradients and buffers; the module does that by itself."""
    model = trainer.strategy.model
    if isinstance(model, torch.nn.parallel.DistributedDataParallel):
        model.require_backward_grad_sync = False
        model.require_forward_param_sync = False
    elif trainer.world_size > 1:
        raise ValueError(f"an ensemble spreads over devices with strategy='ddp', not with {type(trainer.strategy)}")


@rank_zero_only
def rank_zero_warn(message: str) -> None:
    """A warning on rank zero, without a line of this package before it; an error is not made of it."""
    warn(message, stacklevel=3)


def warn_once(message: str) -> None:
    """A warning that is said once in the life of the process, however many callbacks it comes from."""
    if message not in _said:
        _said.add(message)
        rank_zero_warn(message)


def is_lightning_module(model: Any) -> bool:
    """Whether a module is a LightningModule, of either class tree."""
    return isinstance(model, tuple(tree.LightningModule for tree in _TREES))


def has_forward(module: Any) -> bool:
    """Whether a module has a ``forward`` of its own, beside its ``training_step``."""
    return all(type(module).forward is not tree.LightningModule.forward for tree in _TREES)


def configures_optimizers(module: Any) -> bool:
    """Whether a LightningModule says which optimiser it is trained with."""
    own = vars(module).get("configure_optimizers") or type(module).configure_optimizers
    return all(own is not tree.LightningModule.configure_optimizers for tree in _TREES)


def silent_logger() -> Any:
    """A logger that answers every call and does nothing."""
    return DummyLogger()


def loader_of(datamodule: Any) -> Iterable[Any]:
    """The training batches of a LightningDataModule, several loaders combined as the Trainer does."""
    datamodule.prepare_data()
    datamodule.setup("fit")
    loader = datamodule.train_dataloader()
    if isinstance(loader, (dict, list, tuple)):
        loader = CombinedLoader(loader, "max_size_cycle")
    return _Combined(loader) if hasattr(loader, "flattened") else loader


class _Combined:
    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return (batch for batch, _, _ in self.loader)


def fit_quietly(module: Any, batches: Any, count: int, device: torch.device, *callbacks: Callback) -> None:
    """Train a module for so many batches with a Trainer that shows, logs and saves nothing.

    A Trainer it has to be: ``self.log``, ``self.optimizers()`` and ``self.trainer`` work only with one.
    """
    tree = next(tree for tree in _TREES if isinstance(module, tree.LightningModule))
    module.configure_callbacks = list  # neither checkpoints nor early stopping
    with _silence(), warnings.catch_warnings():
        for message in ("GPU available", "Found .* module.s. in eval mode", ".*does not have many workers"):
            warnings.filterwarnings("ignore", message)
        trainer = tree.Trainer(
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=1 if device.index is None or device.type != "cuda" else [device.index],
            max_epochs=1,
            limit_train_batches=count,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            logger=DummyLogger(),
            callbacks=list(callbacks),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(module, batches)
        except SystemExit as exit:  # what the Trainer makes of Ctrl-C
            if isinstance(exit.__context__, KeyboardInterrupt):
                raise exit.__context__ from None
            raise


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
