"""What the shared probe asks of each monitor, and what becomes of one that fails."""

from __future__ import annotations

from typing import Protocol

from lightning_tricks._compat.lightning import rank_zero_warn
from lightning_tricks.callbacks.monitoring.loss_history import LossHistory
from lightning_tricks.probes import Snapshot, ValidationRecord
from lightning_tricks.probes.watch.error_guard import ErrorGuard


class MonitorErrors(ErrorGuard):
    """A block whose errors end a monitor and never a training: the first is said as a warning, ``failed`` remembers it.

    Args:
        who: The name of what failed; without one nothing is said.

    >>> errors = MonitorErrors()
    >>> with errors:
    ...     1 / 0
    >>> errors.failed
    True
    """

    def __init__(self, who: str = "") -> None:
        super().__init__(self.fail)
        self.who = who
        self.error: Exception | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None

    def fail(self, error: Exception) -> None:
        first, self.error = not self.failed, error
        if first and self.who:
            rank_zero_warn(
                f"{self.who} stopped, the training goes on: {type(error).__name__}: {error}. "
                "Please report this with the model's code."
            )


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
