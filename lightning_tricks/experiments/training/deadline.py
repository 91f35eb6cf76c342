"""Deadline: when experiments stop, also in the middle of one."""

from __future__ import annotations

import time


class TimeIsUpError(Exception):
    """The time that was given for experiments is over."""

    def __str__(self) -> str:
        return "no time was left"


class Deadline:
    """When to stop.

    Args:
        seconds: From now on.
    """

    def __init__(self, seconds: float) -> None:
        self.begun = time.perf_counter()
        self.seconds = seconds

    @property
    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.begun)

    def check(self) -> None:
        """TimeIsUpError where nothing is left."""
        if self.left <= 0:
            raise TimeIsUpError
