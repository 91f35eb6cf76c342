"""What every monitor has in common: when to probe, what to keep, where to log."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_tricks._compat import trainer as compat
from lightning_tricks._compat.lightning import rank_zero_warn
from lightning_tricks.callbacks.monitoring import checkpoints
from lightning_tricks.callbacks.monitoring.monitor_hooks import MonitorHooks
from lightning_tricks.callbacks.monitoring.output.files import FitFiles, make_folder
from lightning_tricks.model.arguments import check_count
from lightning_tricks.probes import Snapshot, ValidationRecord
from lightning_tricks.probes.probe import MAX_PATTERNS
from lightning_tricks.report import write_csv
from lightning_tricks.watch import selection
from lightning_tricks.watch.loss_history import LossHistory


class Monitor(MonitorHooks):
    """A callback that receives a snapshot of every probed step; this base class keeps them and logs nothing.

    Subclasses say what is logged, :meth:`summary` for the whole model and :meth:`per_layer` for each layer, and what is
    shown at the end. The arguments are those of :class:`lightning_tricks.ActivationMonitor`.
    """

    prefix = "monitor"
    files: bool = False  # whether any are written at the end
    _state_key: str | None = None

    def __init__(
        self,
        *,
        every_n_steps: int | None = None,
        layers: str | list[str] = "*",
        max_patterns: int | None = MAX_PATTERNS,
        log_per_layer: bool = False,
    ) -> None:
        super().__init__()
        check_count("every_n_steps", every_n_steps, "None for the Trainer's log_every_n_steps")
        check_count("max_patterns", max_patterns, "None for all patterns")
        self.shown = self.globs = selection.as_globs("layers", layers)  # what is shown, and what is to be looked at
        self.every_n_steps = every_n_steps
        self.layers = layers if isinstance(layers, (str, list, tuple)) else list(self.globs)  # plain, for checkpoints
        self.max_patterns = max_patterns
        self.log_per_layer = log_per_layer
        self.history: list[Snapshot] = []
        self._every = every_n_steps or 1
        self._name = self.prefix  # in keys and folders; a second monitor of a class gets a number
        self._fresh = self._to_show = self._is_last = False
        self.files_of_fit = FitFiles()

    # --- for subclasses ----------------------------------------------------------------------------------------

    def summary(self, snapshot: Snapshot) -> dict[str, float]:
        """Numbers for the whole model, by name."""
        return {}

    def per_layer(self, snapshot: Snapshot) -> dict[str, float]:
        """Numbers for each layer, by ``measure/layer``: loggers make a group of what stands before the slash."""
        return {}

    def show(self, trainer: Any, folder: Path | None) -> None:
        """Print and write what the end of a training is to show; on rank zero; None: nothing is to be written."""

    # --- snapshots ---------------------------------------------------------------------------------------------

    def should_probe(self, step: int) -> bool:
        return not self.errors.failed and selection.is_probed(step, self._every)

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot; called once per probed step."""
        if not self.history and "*" not in self.shown:
            lost = selection.no_layer_matches(snapshot, self.layers)
            if lost:
                rank_zero_warn(f"{type(self).__name__}: {lost}")
        selection.append(self.history, snapshot.matching(self.globs))
        self._fresh = self._to_show = True

    def on_validation_loss(self, loss: float) -> None:
        selection.set_validation_loss(self.history, loss)

    def on_validation_data(self, record: ValidationRecord) -> None:
        selection.set_validation_data(self.history, record)

    def on_training_end(self) -> None:
        """The training is over: no step follows."""
        if self.history:
            self.history[-1] = dataclasses.replace(self.history[-1], ended=True)

    def to_csv(self, path: str | Path) -> Path:
        """Write the history as a tidy table: one row per step, layer and measure."""
        return write_csv(self.history, path)

    # --- hooks -------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        super().on_fit_start(trainer, pl_module)
        self._state_key = None
        self._every = self.every_n_steps or trainer.log_every_n_steps or 50
        self._to_show = self._fresh = False
        monitors = _monitors_of(trainer)
        self.files_of_fit = FitFiles() if monitors[0] is self else monitors[0].files_of_fit
        self._is_last = monitors[-1] is self
        same = [monitor for monitor in monitors if monitor.prefix == self.prefix].index(self) + 1
        self._name = self.prefix if same == 1 else f"{self.prefix}_{same}"

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.history and not self.errors.failed:
            with self.errors:
                if self._fresh:
                    self._log(trainer)
                    if self._is_last and trainer.checkpoint_callbacks:
                        checkpoints.pack_latest(_monitors_of(trainer))
        self._end_row(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_end(trainer, pl_module)
        self.on_training_end()
        self._finish(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        super().on_exception(trainer, pl_module, exception)
        self._finish(trainer)

    # --- checkpoints -------------------------------------------------------------------------------------------

    @property
    def state_key(self) -> str:
        """As Lightning writes such keys; checkpoints are read by it. A Trainer asks for it at every hook of a step."""
        if self._state_key is None:
            self._state_key = self.make_state_key()
        return self._state_key

    def make_state_key(self) -> str:
        """That of its class and of its arguments as they are now."""
        arguments = {"layers": self.layers, "every_n_steps": self.every_n_steps, "max_patterns": self.max_patterns}
        return f"{type(self).__qualname__}{arguments!r}"

    def own_state(self) -> dict[str, Any]:
        """What is to be kept in a checkpoint beside the history, as plain data."""
        return {"loss_history": self.loss_history.state_dict()}

    def restore(self, history: list[Snapshot], state: Mapping[str, Any]) -> None:
        """Take up the history of a checkpoint, and what ``own_state`` gave."""
        self.loss_history = LossHistory()
        losses = state.get("loss_history", state.get("curve"))  # what version 0.1 calls it, or does not have
        if losses is not None:
            self.loss_history.load_state_dict(losses)
        self.history = history

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        monitors = _monitors_of(trainer)
        if monitors[0] is self:
            checkpoints.save_to(checkpoint, monitors)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        monitors = _monitors_of(trainer)
        if monitors[0] is self and checkpoints.KEY in checkpoint:
            state = checkpoint[checkpoints.KEY]
            checkpoints.read_or_begin_anew(monitors, lambda: checkpoints.restore(monitors, state))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What a version before this one has saved among the states of the callbacks."""

        def read() -> None:
            self.restore([Snapshot.from_dict(snapshot) for snapshot in state_dict["history"]], state_dict)

        checkpoints.read_or_begin_anew([self], read)

    # --- internals ---------------------------------------------------------------------------------------------

    def _log(self, trainer: Any) -> None:
        """Log the latest snapshot, at the step that it is of."""
        latest = self.history[-1]
        self._fresh = False
        # NaN would end an EarlyStopping on this key: what has no value yet is not there, and keeps the one that it had.
        known = {f"{self._name}/{key}": v for key, v in self.summary(latest).items() if not math.isnan(v)}
        compat.set_callback_metrics(trainer, known)
        if trainer.loggers:
            layers = self.per_layer(latest) if self.log_per_layer else {}
            known |= {f"{self._name}.{key}": v for key, v in layers.items()}
            if not compat.log(trainer, known):
                self.files_of_fit.add_to_row(known, latest.step)

    def _end_row(self, trainer: Any) -> None:
        """The last of the monitors writes what all of them have logged of a step where the Trainer does not."""
        if self._is_last and self.files_of_fit.row:
            row, step = self.files_of_fit.take_row()
            with self.errors:
                compat.log_row(trainer, row, step)

    def _finish(self, trainer: Any) -> None:
        self._end_row(trainer)
        to_show, self._to_show = self._to_show, False
        if to_show and trainer.is_global_zero:
            with self.errors:
                folder = self.files_of_fit.folder_of(trainer, self._name) if self.files else None
                try:
                    if folder is not None:
                        make_folder(trainer, folder)
                    self.show(trainer, folder)
                except OSError as error:
                    reason = str(error.strerror or error)
                    said = reason if reason.startswith("cannot write to ") else f"cannot write to {folder}: {reason}"
                    rank_zero_warn(
                        f"{type(self).__name__} {said}. The training and the history are whole: to_csv(path) writes "
                        "the latter elsewhere"
                    )


def _monitors_of(trainer: Any) -> list[Monitor]:
    return [callback for callback in trainer.callbacks if isinstance(callback, Monitor)]
