"""What every monitor has in common: when to look, what to keep, where to log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lightning_tricks import _lightning
from lightning_tricks.callbacks import history as histories
from lightning_tricks.callbacks.conductor import Conductor
from lightning_tricks.callbacks.schedule import is_probed
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.probe import MAX_PATTERNS
from lightning_tricks.report import Diagnosis


class Monitor(_lightning.Callback):
    """A callback that receives a snapshot of every probed step.

    Subclasses say what is logged: :meth:`summary` for the whole model, :meth:`per_layer` for each layer.

    Args:
        every_n_steps: Look at optimiser steps 0, 1, 2, 4, 8, ... up to this number, then at every multiple of it; None
            for the Trainer's ``log_every_n_steps``.
        layers: A glob, or several, of the names to look at, such as ``"encoder.*"``.
        max_patterns: The most patterns (batch x space x time) per unit that are looked at; None for all.
        log_per_layer: Whether every layer's measures go to the loggers, beside the summaries of the whole model.
    """

    prefix = "monitor"

    def __init__(
        self,
        *,
        every_n_steps: int | None = None,
        layers: str | list[str] = "*",
        max_patterns: int | None = MAX_PATTERNS,
        log_per_layer: bool = True,
    ) -> None:
        super().__init__()
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, or None for the Trainer's own, got {every_n_steps}")
        if max_patterns is not None and max_patterns < 1:
            raise ValueError(f"max_patterns must be at least 1, or None for all patterns, got {max_patterns}")
        self.every_n_steps = every_n_steps
        self.layers = layers
        self.max_patterns = max_patterns
        self.log_per_layer = log_per_layer
        self.history: list[Snapshot] = []
        self._every = every_n_steps or 1
        self._conductor: Conductor | None = None
        self._keys: tuple[str, ...] = ()
        self._fresh = False
        self._shown = True

    # --- for subclasses ----------------------------------------------------------------------------------------

    def summary(self, snapshot: Snapshot) -> dict[str, float]:
        """Numbers for the whole model, by name."""
        raise TypeError(f"{type(self).__name__} does not say what it logs")

    def per_layer(self, snapshot: Snapshot) -> dict[str, float]:
        """Numbers for each layer, by ``layer/measure``."""
        return {}

    def show(self, trainer: Any, folder: Path) -> None:
        """Write pictures and tables at the end of a training; on rank zero."""

    # --- snapshots ---------------------------------------------------------------------------------------------

    @property
    def globs(self) -> Sequence[str]:
        return [self.layers] if isinstance(self.layers, str) else self.layers

    def wants(self, step: int) -> bool:
        return is_probed(step, self._every)

    def receive(self, snapshot: Snapshot) -> None:
        """Keep a snapshot; called once per probed step."""
        if list(self.globs) != ["*"]:
            snapshot = snapshot.only(lambda name: any(fnmatchcase(name, glob) for glob in self.globs))
        histories.append(self.history, snapshot)
        self._fresh = True

    def to_csv(self, path: str | Path) -> Path:
        """Write the history as a tidy table: one row per step, layer and measure."""
        return Diagnosis([], self.history).to_csv(path)

    # --- hooks -------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._every = self.every_n_steps or trainer.log_every_n_steps or 50
        self._keys, self._shown, self._fresh = (), False, False
        monitors = [callback for callback in trainer.callbacks if isinstance(callback, Monitor)]
        self._conductor = Conductor(monitors) if monitors[0] is self else None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._conductor is not None:
            self._conductor.begin_batch(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if self._conductor is not None:
            self._conductor.before_step(optimizer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._conductor is not None:
            self._conductor.end_batch(trainer)
        if self.history and not trainer.barebones and (self._fresh or _lightning.is_logging(trainer)):
            self._log(trainer, pl_module)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._stop()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._stop()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._finish(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._finish(trainer)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._stop()
        self._conductor = None

    @property
    def state_key(self) -> str:
        return self._generate_state_key(layers=self.layers, every_n_steps=self.every_n_steps)

    def state_dict(self) -> dict[str, Any]:
        return {"history": [snapshot.to_dict() for snapshot in self.history]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = [Snapshot.from_dict(snapshot) for snapshot in state_dict["history"]]

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to a running Trainer: Lightning hangs its log functions on callbacks."""
        kept = {key: value for key, value in self.__dict__.items() if key not in ("log", "log_dict")}
        return {**kept, "_conductor": None}

    def _stop(self) -> None:
        if self._conductor is not None:
            self._conductor.stop()

    def _log(self, trainer: Any, pl_module: Any) -> None:
        """Log the latest snapshot; the set of keys stays that of the first time, as some loggers need."""
        latest = self.history[-1]
        self._fresh = False
        values = {f"{self.prefix}/{key}": value for key, value in self.summary(latest).items()}
        _lightning.set_callback_metrics(trainer, values)
        if not _lightning.is_logging(trainer):
            return
        if self.log_per_layer and trainer.loggers:
            layers = {f"{self.prefix}/{key}": value for key, value in self.per_layer(latest).items()}
            self._keys = self._keys or tuple(layers)
            values.update((key, layers.get(key, math.nan)) for key in self._keys)
        pl_module.log_dict(values, on_step=True, on_epoch=False)

    def _finish(self, trainer: Any) -> None:
        self._stop()
        if self._shown or not self.history:
            return
        self._shown = True
        folder = _lightning.report_folder(trainer, self.prefix)
        if trainer.is_global_zero:
            self.show(trainer, folder)
