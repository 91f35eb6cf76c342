"""What the arguments of a monitor may be, and what they choose."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from lightning_tricks.probes import Snapshot


def check_count(name: str, value: Any, none_means: str) -> None:
    """Raise a clear error unless a value is a whole number of at least 1, or None."""
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number of at least 1, or {none_means}, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, or {none_means}, got {value}")


def globs(name: str, value: Any) -> tuple[str, ...]:
    """One glob or several as a tuple.

    >>> globs("layers", "encoder.*")
    ('encoder.*',)
    """
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not found or not all(isinstance(glob, str) and glob for glob in found):
        raise ValueError(f"{name} must be a glob such as 'encoder.*' or a list of them, got {value!r}")
    return found


def only(snapshot: Snapshot, globs: Sequence[str]) -> Snapshot:
    """The part of a snapshot whose names match; the snapshot itself where that is all of it."""
    if "*" in globs:
        return snapshot
    return snapshot.only(lambda name: any(fnmatchcase(name, glob) for glob in globs))


def no_match(snapshot: Snapshot, layers: Any) -> str:
    """What to tell a user whose globs match nothing."""
    names = list(dict.fromkeys(record.name.rpartition(".")[0] for record in snapshot.parameters))
    shown = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
    return f"no layer matches layers={layers!r}; those with parameters are {shown or 'none'}"
