"""Exit statuses, and the error that is told without a traceback."""

from __future__ import annotations

import importlib

OK, SICK, ERROR, UNKNOWN = 0, 1, 2, 3
OF_STATE: dict[str, int] = {"healthy": OK, "sick": SICK, "not_learning": SICK, "unknown": UNKNOWN}


class CommandError(Exception):
    """What the user gave cannot be used; the message says what and why."""


def version() -> str:
    """The package's own, which stands above all rooms."""
    return str(importlib.import_module("lightning_tricks").__version__)
