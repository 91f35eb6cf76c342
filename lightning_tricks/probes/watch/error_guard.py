"""What only looks on must never break a training, and the probe's own arithmetic must not be seen by itself."""

from __future__ import annotations

import functools
from collections.abc import Callable, MutableMapping
from typing import Any

from lightning_tricks._compat import torch_functions


class ErrorGuard:
    """A block whose exceptions are handed over and go no further. Ctrl-C and the like are no errors and go on.

    Args:
        on_error: Receives the exception.
        unseen: Whether no function mode sees what is called inside; such a guard guards one block at a time.

    >>> errors = []
    >>> with ErrorGuard(errors.append):
    ...     1 / 0
    >>> errors
    [ZeroDivisionError('division by zero')]
    """

    def __init__(self, on_error: Callable[[Exception], object], *, unseen: bool = False) -> None:
        self._on_error = on_error
        self._unseen = torch_functions.unseen() if unseen else None

    @classmethod
    def listing(cls, not_seen: MutableMapping[str, str], name: str) -> ErrorGuard:
        """A block of a probe's own arithmetic: no function mode sees it, and what fails is listed under ``name``."""
        return cls(functools.partial(_list, not_seen, name), unseen=True)

    def __enter__(self) -> None:
        if self._unseen is not None:
            self._unseen.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        if self._unseen is not None:
            self._unseen.__exit__(kind, error, trace)
        if not isinstance(error, Exception):
            return False
        self._on_error(error)
        return True


def _list(not_seen: MutableMapping[str, str], name: str, error: Exception) -> None:
    not_seen[name] = f"could not be read: {type(error).__name__}: {error}"
