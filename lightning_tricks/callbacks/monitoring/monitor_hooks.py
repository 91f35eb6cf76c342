"""The hooks through which the monitors of a Trainer share one probe."""

from __future__ import annotations

from typing import Any

import torch

from lightning_tricks._compat.lightning import Callback
from lightning_tricks.callbacks.monitoring.shared_probe import SharedProbe
from lightning_tricks.probes import Snapshot, ValidationRecord
from lightning_tricks.probes.probe import MAX_PATTERNS
from lightning_tricks.watch.errors import MonitorErrors
from lightning_tricks.watch.loss_history import LossHistory


class MonitorHooks(Callback):
    """A callback that, being the first of its kind in a Trainer, passes the Trainer's hooks on to the shared probe.

    Nothing is attached before the fit starts, and nothing is left after it, after an exception or after Ctrl-C.
    """

    globs: tuple[str, ...] = ("*",)
    max_patterns: int | None = MAX_PATTERNS
    preflight: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.loss_history = LossHistory()
        self.errors = MonitorErrors(type(self).__name__)
        self._shared_probe: SharedProbe | None = None

    def should_probe(self, step: int) -> bool:
        """Whether this optimiser step is to be probed."""
        raise NotImplementedError(f"{type(self).__name__} is to say which optimiser steps are to be probed")

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """The snapshot of a step that was to be probed; an error in here ends the monitor only."""

    def on_validation_loss(self, loss: float) -> None:
        """The loss of a validation, the same on every rank; an error in here ends the monitor only."""

    def on_validation_data(self, record: ValidationRecord) -> None:
        """What the first validation gave the network, the same on every rank; an error ends the monitor only."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.errors = MonitorErrors(type(self).__name__)
        monitors = [callback for callback in trainer.callbacks if isinstance(callback, MonitorHooks)]
        self._shared_probe = SharedProbe(monitors) if monitors[0] is self else None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._shared_probe is not None:
            self._shared_probe.begin_batch(trainer, pl_module, batch)
            self._shared_probe.repeated_step.begin(batch, batch_idx)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        if self._shared_probe is not None:
            self._shared_probe.before_backward(trainer, pl_module, loss)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        if self._shared_probe is not None:
            self._shared_probe.before_step(trainer, optimizer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._shared_probe is not None:
            self._shared_probe.end_batch(trainer, outputs, batch)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if self._shared_probe is not None:
            self._shared_probe.begin_validation(trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._shared_probe is not None:
            self._shared_probe.begin_validation_batch(batch, dataloader_idx)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._shared_probe is not None:
            self._shared_probe.validate_batch(outputs)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if self._shared_probe is not None:
            self._shared_probe.end_validation(trainer)
            self._shared_probe.resume()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self._shared_probe is not None:
            self._shared_probe.end_epoch(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._detach()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._detach()

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to a running Trainer: Lightning hangs its log functions on callbacks."""
        kept = {key: value for key, value in self.__dict__.items() if key not in ("log", "log_dict")}
        return {**kept, "_shared_probe": None}

    def _detach(self) -> None:
        if self._shared_probe is not None:
            self._shared_probe.stop()
            self._shared_probe = None
