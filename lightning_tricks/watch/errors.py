"""What becomes of an error of a monitor or of a doctor, and where it is said."""

from __future__ import annotations

from lightning_tricks._compat.messages import warn
from lightning_tricks.model.processes import process_rank
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
            say(
                f"{self.who} stopped, the training goes on: {type(error).__name__}: {error}. "
                "Please report this with the model's code."
            )


def say(message: str) -> None:
    """A warning, of several processes by the first only."""
    if process_rank() == 0:
        warn(message, stacklevel=3)
