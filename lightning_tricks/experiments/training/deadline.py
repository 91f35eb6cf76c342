"""Deadline: when experiments stop, also in the middle of one."""

from __future__ import annotations

import math
import time


class TimeIsUpError(Exception):
    """The time or the steps that were given for experiments are over."""


class Deadline:
    """When to stop.

    Args:
        seconds: From now on.
        steps: Of all trainings together.
    """

    def __init__(self, seconds: float, steps: float = math.inf) -> None:
        self.begun = time.perf_counter()
        self.seconds, self.steps = seconds, steps

    @property
    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.begun)

    def check(self) -> None:
        """TimeIsUpError where nothing is left."""
        if self.left <= 0:
            raise TimeIsUpError("no time was left")

    def step(self) -> None:
        """Count a step of a training; TimeIsUpError where none is left."""
        if self.steps <= 0:
            raise TimeIsUpError("no steps were left")
        self.steps -= 1
