"""One probe per step for all monitors of a Trainer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from lightning_tricks import _lightning
from lightning_tricks.probes import Probe, Snapshot

if TYPE_CHECKING:
    from lightning_tricks.callbacks.monitor import Monitor


Method = TypeVar("Method", bound=Callable[..., None])


def _never_break_a_training(method: Method) -> Method:
    """After an error of a monitor's own: detach, say so once, and leave the training alone from then on."""

    @functools.wraps(method)
    def guarded(self: Conductor, *args: Any) -> None:
        if self.broken:
            return
        try:
            method(self, *args)
        except Exception as error:
            self.broken = True
            self.stop()
            names = ", ".join(type(monitor).__name__ for monitor in self.monitors)
            _lightning.rank_zero_warn(
                f"{names} stopped looking, the training goes on: {type(error).__name__}: {error}. "
                "Please report this with the model's code."
            )

    return guarded  # type: ignore[return-value]


class Conductor:
    """Opens a probe when a monitor wants this optimiser step, and hands everyone who wanted it the snapshot.

    The first monitor among the Trainer's callbacks owns the conductor and passes its hooks on; so it runs once a hook.
    """

    def __init__(self, monitors: Sequence[Monitor]) -> None:
        self.monitors = list(monitors)
        self._probe: Probe | None = None
        self._waiting: list[Monitor] = []
        self.broken = False

    @_never_break_a_training
    def begin_batch(self, trainer: Any, module: torch.nn.Module) -> None:
        """Before a batch: open a probe, or go on with the one of this accumulation window."""
        if self._probe is not None:
            self._probe.new_batch()
            return
        step = _lightning.steps_taken(trainer)
        self._waiting = [monitor for monitor in self.monitors if monitor.wants(step)]
        if not self._waiting:
            return
        patterns = [monitor.max_patterns for monitor in self._waiting]
        most = None if None in patterns else max(count for count in patterns if count is not None)
        globs = [glob for monitor in self._waiting for glob in monitor.globs]
        probe = Probe(module, layers=globs, max_patterns=most, step=step)
        probe.loss_scale = _lightning.loss_scale(trainer)
        probe.ranks = trainer.world_size
        self._probe = probe.open()

    @_never_break_a_training
    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Gradients after accumulation, reduction and unscaling, before clipping."""
        if self._probe is not None:
            scale = self._probe.loss_scale if _lightning.handles_unscaling(optimizer) else 1.0
            self._probe.read_gradients([p for group in optimizer.param_groups for p in group["params"]], scale)

    @_never_break_a_training
    def end_batch(self, trainer: Any) -> None:
        """After a batch: when the optimiser has stepped, close the probe and hand out the snapshot."""
        probe = self._probe
        if probe is None or not _lightning.window_ends(trainer):
            return
        probe.read_updates()
        self.stop()
        snapshot = merge_over_ranks(probe.snapshot())
        for monitor in self._waiting:
            monitor.receive(snapshot)
        self._waiting = []

    def stop(self) -> None:
        """Detach whatever is attached, at any time."""
        if self._probe is not None:
            self._probe.close()
            self._probe = None


def merge_over_ranks(snapshot: Snapshot) -> Snapshot:
    """The snapshot of the joint batch, the same on every rank."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return snapshot
    world = torch.distributed.get_world_size()
    if world == 1:
        return snapshot
    gathered: list[Any] = [None] * world
    torch.distributed.all_gather_object(gathered, snapshot)
    merged: Snapshot = gathered[0]
    for other in gathered[1:]:
        merged = merged.merge(other)
    return merged
