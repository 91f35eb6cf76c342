"""Exit statuses, and the error that is told without a traceback."""

from __future__ import annotations

OK, SICK, ERROR, UNKNOWN = 0, 1, 2, 3
OF_STATE: dict[str, int] = {"healthy": OK, "sick": SICK, "not_learning": SICK, "unknown": UNKNOWN}


class CommandError(Exception):
    """What the user gave cannot be used; the message says what and why."""
