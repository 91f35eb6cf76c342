"""What was found out about a snapshot stays with it: a look costs the same, however many came before."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

from lightning_tricks.probes import Snapshot

T = TypeVar("T")


def remembered(function: Callable[[Snapshot], T]) -> Callable[[Snapshot], T]:
    """A function of a snapshot alone, called once for each: judging at every look then asks it of new ones only.

    A snapshot that takes another's place is another object, so that nothing here can be out of date. What is returned
    is shared and not to be changed.

    >>> @remembered
    ... def doubled(snapshot):
    ...     print("worked out")
    ...     return 2 * snapshot.step
    >>> snapshot = Snapshot(3)
    >>> doubled(snapshot), doubled(snapshot)
    worked out
    (6, 6)
    """

    @functools.wraps(function)
    def once(snapshot: Snapshot) -> T:
        known = snapshot.remembered
        if once not in known:
            known[once] = function(snapshot)
        value: T = known[once]
        return value

    return once
