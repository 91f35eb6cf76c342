"""The only file that names lightning or touches a private attribute of its Trainer."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.fabric.utilities.rank_zero import WarningCache
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import CombinedLoader, rank_zero_warn

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
    "fit_quietly",
    "handles_unscaling",
    "has_forward",
    "is_automatic",
    "is_lightning_module",
    "is_logging",
    "loader_of",
    "log",
    "loss_scale",
    "move_data_to_device",
    "optimizers",
    "rank_and_world",
    "rank_zero_warn",
    "report_folder",
    "set_callback_metrics",
    "shows_figures",
    "steps_taken",
    "warn_once",
    "window_ends",
    "without_gradient_exchange",
]

_said = WarningCache()


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


def steps_taken(trainer: Trainer) -> int:
    """Optimiser steps before this batch, on the axis of the loggers (two optimisers of a batch count once)."""
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


def window_ends(trainer: Trainer) -> bool:
    """Whether this batch is the last of an accumulation window, so that the optimiser steps."""
    return not trainer.fit_loop.epoch_loop._should_accumulate()


def is_automatic(trainer: Trainer) -> bool:
    """Whether the Trainer calls backward and the optimiser, rather than the module."""
    return bool(trainer.lightning_module.automatic_optimization)


def optimizers(trainer: Trainer) -> list[torch.optim.Optimizer]:
    """The optimisers of a training, without the one that the Trainer makes up where there is none."""
    return [optimizer for optimizer in trainer.optimizers if optimizer.param_groups]


def is_logging(trainer: Trainer) -> bool:
    """Whether the Trainer writes to its loggers after this batch."""
    if getattr(trainer, "barebones", False) or (is_automatic(trainer) and not window_ends(trainer)):
        return False
    return bool(trainer._logger_connector.should_update_logs or getattr(trainer, "fast_dev_run", False))


def set_callback_metrics(trainer: Trainer, values: dict[str, float]) -> None:
    """Put numbers where EarlyStopping and ModelCheckpoint look."""
    trainer._logger_connector._callback_metrics.update(_tensors(values))


def log(trainer: Trainer, values: dict[str, float]) -> None:
    """Hand numbers to the loggers with what the Trainer writes after this batch, in the same row.

    ``LightningModule.log`` takes about 0.3 ms a number, which for the measures of its layers is more than a step of a
    small network; a call of the loggers' own would begin a second row in a table.
    """
    connector: Any = trainer._logger_connector
    waiting = connector.__dict__.get("log_metrics")
    if isinstance(waiting, _Riders):
        waiting.values.update(values)
    else:
        connector.log_metrics = _Riders(connector, values)


class _Riders:
    """Stands for the connector's ``log_metrics`` until it is called the next time."""

    def __init__(self, connector: Any, values: dict[str, float]) -> None:
        self.connector, self.values = connector, dict(values)

    def __call__(self, metrics: dict[str, Any], step: int | None = None) -> None:
        del self.connector.log_metrics
        self.connector.log_metrics({**metrics, **self.values}, step)


def loss_scale(trainer: Trainer) -> float | torch.Tensor:
    """The factor on the loss that goes backward: the loss scaler's, as a tensor on the device, or 1."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not scaler.is_enabled():
        return 1.0
    scale = getattr(scaler, "_scale", None)  # made at the first backward pass
    return scale.detach().clone() if isinstance(scale, torch.Tensor) else float(scaler.get_scale())


def handles_unscaling(optimizer: Any) -> bool:
    """Whether gradients are still scaled right before this optimiser's step, because it unscales them itself."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def report_folder(trainer: Trainer, name: str) -> Path | None:
    """Where files of a callback go: beside the logger's, else under the Trainer's default_root_dir; on rank zero only.

    None in a ``fast_dev_run``, which leaves no files. No process waits for another one here (``trainer.log_dir`` does):
    it is also asked for after an exception on one of them.
    """
    if getattr(trainer, "fast_dev_run", False):
        return None
    logger = trainer.loggers[0] if trainer.loggers else None
    if logger is None:
        return Path(trainer.default_root_dir) / name
    own = getattr(logger, "log_dir", None)
    if own:
        return Path(own) / name
    parts = [str(part) for part in (logger.name, logger.version) if part not in (None, "")]
    return Path(logger.save_dir or trainer.default_root_dir).joinpath(*parts, name)


def shows_figures(logger: Any) -> bool:
    """Whether ``logger.experiment.add_figure`` is TensorBoard's."""
    return any(cls.__name__ == "TensorBoardLogger" for cls in type(logger).__mro__)


def warn_once(message: str) -> None:
    """A warning that is said once in the life of the process, however many callbacks it comes from."""
    _said.warn(message)


def is_lightning_module(model: Any) -> bool:
    """Whether a module is a LightningModule, of either class tree."""
    return isinstance(model, tuple(tree.LightningModule for tree in _TREES))


def has_forward(module: Any) -> bool:
    """Whether a module has a ``forward`` of its own, beside its ``training_step``."""
    return all(type(module).forward is not tree.LightningModule.forward for tree in _TREES)


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


def fit_quietly(module: Any, batches: Any, count: int, device: torch.device, callback: Callback) -> None:
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
            callbacks=[callback],
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


def _tensors(values: dict[str, float]) -> dict[str, torch.Tensor]:
    return dict(zip(values, torch.tensor(list(values.values()), dtype=torch.float32).unbind(), strict=True))
