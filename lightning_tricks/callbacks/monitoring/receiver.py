"""What the shared probe asks of each monitor."""

from __future__ import annotations

from typing import Protocol

from lightning_tricks.probes import Snapshot, ValidationRecord
from lightning_tricks.watch.errors import MonitorErrors
from lightning_tricks.watch.loss_history import LossHistory


class SnapshotReceiver(Protocol):
    """A monitor as the shared probe sees it.

    Attributes:
        globs: Globs of the names that it shows.
        max_patterns: The most patterns per unit that it asks for; None for all.
        preflight: Whether it asks for further forwards of the first step.
        loss_history: Where the losses of all steps go until its next snapshot.
        errors: The block in which it is called.
    """

    globs: tuple[str, ...]
    max_patterns: int | None
    preflight: bool
    loss_history: LossHistory
    errors: MonitorErrors

    def should_probe(self, step: int) -> bool:
        """Whether this optimiser step is to be probed."""

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """The snapshot of a step that was to be probed."""

    def on_validation_loss(self, loss: float) -> None:
        """The loss of a validation, the same on every rank."""

    def on_validation_data(self, record: ValidationRecord) -> None:
        """What the first validation gave the network, the same on every rank."""
