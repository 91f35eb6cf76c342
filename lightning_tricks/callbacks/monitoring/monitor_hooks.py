"""The hooks through which the monitors of a Trainer share one conductor."""

from __future__ import annotations

from typing import Any

from lightning_tricks._compat import lightning as _lightning
from lightning_tricks.callbacks.monitoring.shared_probe import Conductor


class Attached(_lightning.Callback):
    """A callback that, being the first of its kind in a Trainer, passes the Trainer's hooks on to the conductor.

    Nothing is attached before the fit starts, and nothing is left after it, after an exception or after Ctrl-C.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conductor: Conductor | None = None

    def wants(self, step: int) -> bool:
        """Whether this optimiser step is to be looked at."""
        raise NotImplementedError(f"{type(self).__name__} is to say which optimiser steps it wants")

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        attached = [callback for callback in trainer.callbacks if isinstance(callback, Attached)]
        self._conductor = Conductor(attached) if attached[0] is self else None  # type: ignore[arg-type]

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._conductor is not None:
            self._conductor.begin_batch(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if self._conductor is not None:
            self._conductor.before_step(trainer, optimizer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._conductor is not None:
            self._conductor.end_batch(trainer, outputs)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if self._conductor is not None:
            self._conductor.pause()

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._conductor is not None:
            self._conductor.validate_batch(outputs)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if self._conductor is not None:
            self._conductor.end_validation(trainer)
            self._conductor.go_on()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self._conductor is not None:
            self._conductor.end_epoch(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._detach()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._detach()

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to a running Trainer: Lightning hangs its log functions on callbacks."""
        kept = {key: value for key, value in self.__dict__.items() if key not in ("log", "log_dict")}
        return {**kept, "_conductor": None}

    def _detach(self) -> None:
        if self._conductor is not None:
            self._conductor.stop()
            self._conductor = None
