"""A monitor must never break a training."""

from __future__ import annotations

from typing import Any

from lightning_tricks._compat import lightning as _lightning


class Guard:
    """A block whose errors are said once, as a warning; ``failed`` tells that it is not worth to be tried again.

    Ctrl-C and the like are no errors and go on.

    >>> guard = Guard("ActivationMonitor", quiet=True)
    >>> with guard:
    ...     1 / 0
    >>> guard.failed
    True
    """

    def __init__(self, who: str, *, quiet: bool = False) -> None:
        self.who = who
        self.quiet = quiet
        self.error: Exception | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None

    def fail(self, error: Exception) -> None:
        first, self.error = not self.failed, error
        if first and not self.quiet:
            _lightning.rank_zero_warn(
                f"{self.who} stopped looking, the training goes on: {type(error).__name__}: {error}. "
                "Please report this with the model's code."
            )

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        if not isinstance(error, Exception):
            return False
        self.fail(error)
        return True
