"""What a Trainer does not tell by public names: its optimiser steps, and the numbers on their way to its loggers.

Where a private name of Lightning is gone, its public ones answer as well as they can. What is then lost is said once,
and the training goes on.
"""

from __future__ import annotations

from typing import Any

import torch

from lightning_tricks._compat.lightning import Trainer, warn_once
from lightning_tricks._compat.lightning_module import overrides
from lightning_tricks._compat.torch_optim import current_scale

__all__ = [
    "is_automatic",
    "is_logging",
    "log",
    "log_row",
    "loss_scale",
    "optimizers",
    "set_callback_metrics",
    "set_progress_bar_entry",
    "steps_taken",
    "training_loader",
    "window_ends",
]


def steps_taken(trainer: Trainer) -> int:
    """Optimiser steps before this batch, on the axis of the loggers (two optimisers of a batch count once)."""
    try:
        return int(trainer.fit_loop.epoch_loop._batches_that_stepped)
    except AttributeError:
        warn_once(
            "this version of Lightning does not tell how many batches made an optimiser step: steps are numbered by "
            "trainer.global_step, which manual optimisation may count otherwise"
        )
        steps = int(trainer.global_step) // max(len(optimizers(trainer)), 1)
        return max(steps - _has_counted_this_batch(trainer), 0)


def _has_counted_this_batch(trainer: Trainer) -> bool:
    """Whether the batch at hand has made its step already, so that ``trainer.global_step`` is one ahead."""
    try:
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        return progress.processed == progress.ready and window_ends(trainer)
    except AttributeError:
        return False


def window_ends(trainer: Trainer) -> bool:
    """Whether this batch is the last of an accumulation window, so that the optimiser steps."""
    try:
        return not trainer.fit_loop.epoch_loop._should_accumulate()
    except AttributeError:
        warn_once(
            "this version of Lightning does not tell whether gradients are accumulated: they are taken to be so over "
            "accumulate_grad_batches batches, the last of an epoch excepted"
        )
        done = trainer.fit_loop.epoch_loop.batch_idx + 1
        return done % trainer.accumulate_grad_batches == 0 or bool(trainer.is_last_batch)


def training_loader(trainer: Trainer) -> Any | None:
    """The batches that a fit will train on, also before its first step; None where there are none."""
    try:
        return trainer.fit_loop._data_source.dataloader()
    except AttributeError:  # a datamodule and the module itself can be asked by public names, a loader given to fit not
        for source in (getattr(trainer, "datamodule", None), trainer.lightning_module):
            if source is not None and overrides(source, "train_dataloader"):
                return source.train_dataloader()
        return None


def is_automatic(trainer: Trainer) -> bool:
    """Whether the Trainer calls backward and the optimiser, rather than the module."""
    return bool(trainer.lightning_module.automatic_optimization)


def optimizers(trainer: Trainer) -> list[torch.optim.Optimizer]:
    """The optimisers of a training, without the one that the Trainer makes up where there is none."""
    return [optimizer for optimizer in trainer.optimizers if optimizer.param_groups]


def loss_scale(trainer: Trainer) -> float | torch.Tensor:
    """The factor on the loss that goes backward: the loss scaler's, as a tensor on the device, or 1."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return 1.0 if scaler is None or not scaler.is_enabled() else current_scale(scaler)


def is_logging(trainer: Trainer) -> bool:
    """Whether the Trainer writes to its loggers after this batch."""
    if getattr(trainer, "barebones", False) or (is_automatic(trainer) and not window_ends(trainer)):
        return False
    if getattr(trainer, "fast_dev_run", False):
        return True
    try:
        return bool(trainer._logger_connector.should_update_logs)
    except AttributeError:  # what Lightning documents of log_every_n_steps says as much
        every = getattr(trainer, "log_every_n_steps", 0)
        return every > 0 and ((steps_taken(trainer) + 1) % every == 0 or trainer.should_stop)


def set_callback_metrics(trainer: Trainer, values: dict[str, float]) -> None:
    """Put numbers where EarlyStopping and ModelCheckpoint find them."""
    try:
        metrics = trainer._logger_connector._callback_metrics
    except AttributeError:
        warn_once(
            "this version of Lightning does not take the monitors' numbers into trainer.callback_metrics directly: "
            "they go by LightningModule.log, which is slower"
        )
        trainer.lightning_module.log_dict(values, logger=False, batch_size=1)
    else:
        metrics.update(_tensors(values))


def set_progress_bar_entry(trainer: Trainer, name: str, text: str) -> bool:
    """Show words in the Trainer's progress bar, beside the numbers that the module logs there; whether they are.

    ``LightningModule.log(prog_bar=True)`` takes numbers only. A bar that cannot show words is left as it is.
    """
    bar: Any = getattr(trainer, "progress_bar_callback", None)
    entries = getattr(getattr(trainer, "_logger_connector", None), "_progress_bar_metrics", None)
    if bar is None or not getattr(bar, "is_enabled", False):
        return False
    if entries is None:
        warn_once(
            "this version of Lightning takes no words into its progress bar: the verdict is printed beside it only"
        )
        return False
    first, others = name not in entries, dict(entries)
    entries.clear()
    entries.update({name: text} | others)  # in front: a narrow terminal cuts the end off
    entries[name] = text
    if first:
        try:
            bar.get_metrics(trainer, trainer.lightning_module)
        except Exception:
            del entries[name]
            return False
    return True


def log(trainer: Trainer, values: dict[str, float]) -> bool:
    """Hand numbers to the loggers with what the Trainer writes after this batch, in the same row; whether it writes.

    ``LightningModule.log`` takes about 0.3 ms a number, which for the measures of its layers is more than a step of a
    small network; and where the Trainer does not log, it keeps a number until it does, which is another step.
    """
    connector: Any = getattr(trainer, "_logger_connector", None)
    if not is_logging(trainer):
        return False
    if not hasattr(connector, "log_metrics"):
        warn_once(
            "this version of Lightning does not take the monitors' numbers into the row that it logs: they get rows of "
            "their own"
        )
        return False
    waiting = connector.__dict__.get("log_metrics")
    if isinstance(waiting, _LogWithMore):
        waiting.values.update(values)
    else:
        connector.log_metrics = _LogWithMore(connector, values)
    return True


def log_row(trainer: Trainer, values: dict[str, float], step: int) -> None:
    """Write a row of its own."""
    if getattr(trainer, "log_every_n_steps", 1) > 0:  # with 0 a Trainer logs nothing
        for logger in trainer.loggers:
            try:
                logger.log_metrics(values, step)
                logger.save()
            except Exception as error:
                _say_refused(error)


class _LogWithMore:
    """Stands for the connector's ``log_metrics`` until it is called the next time, with more numbers."""

    def __init__(self, connector: Any, values: dict[str, float]) -> None:
        self.connector, self.values = connector, dict(values)

    def __call__(self, metrics: dict[str, Any], step: int | None = None) -> None:
        del self.connector.log_metrics
        refused = None
        try:
            self.connector.log_metrics({**metrics, **self.values}, step)
        except Exception as error:
            refused = error
        if refused is not None:
            self.connector.log_metrics(metrics, step)  # raises again where it is not for the numbers of the monitors
            _say_refused(refused)


def _say_refused(error: Exception) -> None:
    warn_once(
        f"a logger does not take the monitors' numbers, which are in their history: {type(error).__name__}: {error}"
    )


def _tensors(values: dict[str, float]) -> dict[str, torch.Tensor]:
    return dict(zip(values, torch.tensor(list(values.values()), dtype=torch.float32).unbind(), strict=True))
