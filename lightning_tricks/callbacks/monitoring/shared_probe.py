"""One probe per step for all monitors of a Trainer."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch

from lightning_tricks._compat import trainer as compat
from lightning_tricks._compat.lightning import rank_zero_warn
from lightning_tricks._compat.torch_optim import unscales_itself
from lightning_tricks.callbacks.monitoring.receiver import SnapshotReceiver
from lightning_tricks.callbacks.monitoring.repeated_step import RepeatedStep
from lightning_tricks.callbacks.monitoring.validation_data import ValidationData
from lightning_tricks.model.processes import gather_objects
from lightning_tricks.probes import Probe, Snapshot
from lightning_tricks.probes.watch.loss_path import ClassTarget
from lightning_tricks.watch.errors import MonitorErrors
from lightning_tricks.watch.first_step import FirstStep
from lightning_tricks.watch.loss_history import ValidationLoss, loss_in

Value = TypeVar("Value")
MOST_BATCHES = 16  # without a step of any optimiser, in manual optimisation: then the probe is closed all the same


class SharedProbe:
    """Opens a probe when a monitor asks for this optimiser step, and hands everyone who asked for it the snapshot.

    The first monitor among the Trainer's callbacks owns the shared probe and passes its hooks on; so it runs once a
    hook. An error in here ends the probing, not the training: on all processes at once, as they have to meet to merge.
    """

    def __init__(self, monitors: Sequence[SnapshotReceiver]) -> None:
        self.monitors = list(monitors)
        self._local = MonitorErrors()  # of this process, in the running step
        self._errors = MonitorErrors(", ".join(type(monitor).__name__ for monitor in self.monitors))
        self._probe: Probe | None = None
        self._waiting: list[SnapshotReceiver] = []
        self._batches = 0
        self._loss: torch.Tensor | None = None  # of the batches of this accumulation window
        self._validation = ValidationLoss()
        self._data = ValidationData()
        self.repeated_step = RepeatedStep()
        self._first_step = FirstStep(any(monitor.preflight for monitor in self.monitors))
        asked = [monitor.max_patterns for monitor in self.monitors]
        if len(set(asked)) > 1:
            most = _most_patterns(asked)
            rank_zero_warn(
                f"the monitors of a Trainer share one probe: where one asks for max_patterns={most}, all get as many "
                f"(asked for are {', '.join(map(str, asked))})"
            )

    def begin_batch(self, trainer: Any, module: torch.nn.Module, batch: Any = None) -> None:
        """Before a batch: open a probe, or go on with the one of this accumulation window."""
        if self._errors.failed:
            return
        if self._waiting:
            with self._local:
                if self._probe is not None:
                    self._probe.new_batch()
            return
        with self._errors:
            step = compat.steps_taken(trainer)
            self._waiting = [monitor for monitor in self.monitors if monitor.should_probe(step)]
            self._batches = 0
        if self._waiting:
            with self._local:
                self._probe = self._new_probe(trainer, module, step)
                self._first_step.begin(self._probe, batch, trainer.train_dataloader, trainer.world_size)
                self._probe.open()

    def before_backward(self, trainer: Any, module: torch.nn.Module, loss: torch.Tensor) -> None:
        """Where the loss is the first that is NaN or Inf, run the step again, while the weights are as they were."""
        if not self._errors.failed and self.repeated_step.is_due(trainer, loss):
            self.pause()
            self.repeated_step.repeat(module)
            self.resume()

    def before_step(self, trainer: Any, optimizer: torch.optim.Optimizer) -> None:
        """Gradients after accumulation, reduction and unscaling, before clipping."""
        if self._probe is None:
            return
        with self._local:
            if not compat.is_automatic(trainer):
                return
            scale = self._probe.loss_scale if unscales_itself(optimizer) else 1.0
            self._probe.read_gradients([p for group in optimizer.param_groups for p in group["params"]], scale)
            self._probe.pause()  # what comes now repeats the closure, as LBFGS does
            if self.repeated_step.is_due(trainer, self._probe.gradient_squares()):
                self.repeated_step.repeat(trainer.lightning_module)

    def end_batch(self, trainer: Any, outputs: Any, batch: Any) -> None:
        """After a batch: when the optimiser has stepped, close the probe and hand out the snapshot."""
        self._batches += 1
        self.repeated_step.end()
        if not self._errors.failed:
            with self._local:
                self._add_loss(trainer, outputs)
        if self._waiting:
            with self._errors:
                if self._window_ends(trainer):
                    self._hand_out(trainer, batch)
            if self._errors.failed:
                self.stop()

    def end_epoch(self, trainer: Any) -> None:
        """An epoch may end amid what would have become a step: by hand that is a step, by a skipped batch it is not."""
        with self._errors:
            if self._waiting and self._batches and not compat.is_automatic(trainer):
                self._hand_out(trainer, None)
        self.stop()

    def pause(self) -> None:
        """A validation amid an accumulation is not to be seen."""
        if self._probe is not None:
            with self._local:
                self._probe.pause()

    def begin_validation(self, trainer: Any, module: torch.nn.Module) -> None:
        """A validation begins."""
        self.pause()
        if not self._errors.failed:
            self._data.begin(trainer, module)

    def begin_validation_batch(self, batch: Any, loader: int) -> None:
        """A batch of a validation is about to run."""
        self._data.add(batch, loader)

    def validate_batch(self, outputs: Any) -> None:
        """Keep the loss of a batch of a validation."""
        if not self._errors.failed:
            with self._local:
                self._validation.add(outputs)

    def end_validation(self, trainer: Any) -> None:
        """Hand every monitor the loss of a validation, and of the first its data, the same on every rank."""
        sums = self._data.finish()
        if self._errors.failed:
            return
        loss = None
        with self._local:
            loss = self._validation.finish({} if trainer.sanity_checking else trainer.callback_metrics)
        if trainer.sanity_checking:
            return
        with self._errors:
            losses, counted = zip(*over_ranks((loss, sums), trainer.world_size), strict=True)
            known, record = [each for each in losses if each is not None], self._data.record(counted)
            for monitor in self.monitors:
                with monitor.errors:
                    if known:
                        monitor.on_validation_loss(sum(known) / len(known))
                    if record is not None:
                        monitor.on_validation_data(record)

    def resume(self) -> None:
        """The validation is over."""
        if self._probe is not None:
            with self._local:
                self._probe.resume()

    def stop(self) -> None:
        """Detach whatever is attached, at any time."""
        self._data.stop()
        probe, self._probe, self._waiting = self._probe, None, []
        if probe is not None:
            with self._local:
                probe.close()

    def _hand_out(self, trainer: Any, batch: Any) -> None:
        snapshot, classes = None, dict[str, ClassTarget]()
        kept = [loss for monitor in self._waiting for loss in monitor.loss_history.losses]
        losses = {id(loss): loss for loss in kept}  # the monitors share most of them
        with self._local:
            if self._probe is not None:
                if compat.is_automatic(trainer):
                    self._probe.read_updates()
                self._probe.close()
                self._probe.recent_losses = list(losses.values())
                classes = self._probe.classes_wanted
                self._first_step.run(self._probe)
                snapshot = self._first_step.enter(self._probe.snapshot())
                if snapshot.suspicious:
                    snapshot = dataclasses.replace(snapshot, origin=self.repeated_step.origin)
        waiting = self._waiting
        self.stop()
        snapshot = merge_over_ranks(None if self._local.failed else snapshot, trainer.world_size)
        if snapshot is None:
            raise self._local.error or RuntimeError("a monitor of another process failed")
        self._data.learn(snapshot, classes, batch)
        values = dict(zip(losses, snapshot.recent_losses, strict=False))
        for monitor in waiting:
            own = tuple(values[id(loss)] for loss in monitor.loss_history.losses if id(loss) in values)
            monitor.loss_history.clear()
            with monitor.errors:
                epoch = snapshot.step * trainer.accumulate_grad_batches / trainer.num_training_batches
                monitor.on_snapshot(dataclasses.replace(snapshot, recent_losses=own, epoch=epoch))

    def _add_loss(self, trainer: Any, outputs: Any) -> None:
        """Keep the loss of a step: its window's sum, as the Trainer has divided each batch's by their number."""
        loss = loss_in(outputs)
        if loss is not None:
            self._loss = loss if self._loss is None else self._loss + loss
        if self._loss is not None and (not compat.is_automatic(trainer) or compat.window_ends(trainer)):
            step = compat.steps_taken(trainer)
            for monitor in self.monitors:
                monitor.loss_history.add(step, self._loss)
            self._loss = None

    def _new_probe(self, trainer: Any, module: torch.nn.Module, step: int) -> Probe:
        most = _most_patterns([monitor.max_patterns for monitor in self._waiting])
        globs = [glob for monitor in self._waiting for glob in monitor.globs]
        # Manual optimisation steps whenever and however often it likes: there the optimisers themselves tell.
        own = [] if compat.is_automatic(trainer) else compat.optimizers(trainer)
        probe = Probe(module, own, layers=globs, max_patterns=most, step=step)
        probe.loss_scale = compat.loss_scale(trainer)
        probe.ranks = trainer.world_size
        probe.trained_by(compat.optimizers(trainer))
        return probe

    def _window_ends(self, trainer: Any) -> bool:
        if compat.is_automatic(trainer):
            return compat.window_ends(trainer)
        over = not compat.optimizers(trainer) or self._batches >= MOST_BATCHES
        return over or self._probe is None or self._probe.stepped


def _most_patterns(asked: Sequence[int | None]) -> int | None:
    return None if None in asked else max(count for count in asked if count is not None)


def over_ranks(value: Value, world_size: int) -> list[Value]:
    """The value of every rank of a Trainer, on every rank; one that trains by itself amid others asks none of them."""
    return [value] if world_size == 1 else gather_objects(value)


def merge_over_ranks(snapshot: Snapshot | None, world_size: int) -> Snapshot | None:
    """The snapshot of the joint batch, the same on every rank; None on every rank if any of them has none."""
    gathered = over_ranks(snapshot, world_size)
    snapshots = [each for each in gathered if each is not None]
    if len(snapshots) < len(gathered):
        return None
    merged = functools.reduce(Snapshot.merge, snapshots)
    if len(snapshots) == 1:
        return merged
    known = [each.loss for each in snapshots if not math.isnan(each.loss)]
    recent = zip(*(each.recent_losses for each in snapshots), strict=False)
    return dataclasses.replace(
        merged,  # merging one after the other would weigh the last rank most
        loss=sum(known) / len(known) if known else math.nan,
        recent_losses=tuple(sum(losses) / len(losses) for losses in recent),
    )
