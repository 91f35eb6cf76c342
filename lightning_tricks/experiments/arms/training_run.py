"""One short training: how far it has come after so many steps, asked for as far as it is needed."""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from typing import Any

import numpy as np
import torch

from lightning_tricks.experiments.arms.batches import Batches
from lightning_tricks.experiments.free_outputs import share
from lightning_tricks.experiments.training.deadline import Deadline
from lightning_tricks.experiments.training.optimizers import highest_rate
from lightning_tricks.experiments.training.training import Training

EVERY = 20  # steps between two looks
UNDER = 0.1  # of the way: the floor is that of a few batches
LOST = 0.3  # of the way, on batches that were trained on as well: no overfitting, the training falls apart


class LossUnit:
    """The unit of a loss: 0 is what a guess loses, 1 the floor.

    Args:
        guess, floor: Losses, from ``free_outputs``.
    """

    def __init__(self, guess: float, floor: float) -> None:
        self.guess, self.floor = guess, floor

    def share(self, loss: float) -> float:
        """How far of the way from a guess to the floor; worse than a guess is 0, so that no repair of mere harm counts.

        >>> LossUnit(2.0, 0.0).share(0.5), LossUnit(2.0, 0.0).share(float("inf"))
        (0.75, 0.0)
        """
        return max(0.0, share(loss, self.guess, self.floor)) if math.isfinite(loss) else 0.0


class TrainingRun:
    """One training and its shares of the way on held-back and on seen batches.

    Args:
        training: A copy of its own.
        batches: What it is fed.
        unit: Of its loss.
        seed: Where its batches begin, and of its random numbers: they are drawn anew at every look.
        deadline: When to stop.
    """

    def __init__(self, training: Training, batches: Batches, unit: LossUnit, seed: int, deadline: Deadline) -> None:
        self.training: Any = training
        self.batches, self.unit, self.seed, self.deadline = batches, unit, seed, deadline
        self.steps, self.seconds = 0, 0.0
        self.held: dict[int, float] = {}
        self.seen: dict[int, float] = {}
        self.loss: dict[int, float] = {}
        self.rates: dict[int, float] = {}
        self.losses: list[float] = []
        self._stream = batches.stream(seed)
        self._over = False
        self._look()

    def train_until(self, steps: int) -> None:
        """Go on until so many steps.

        Raises:
            TimeIsUpError: It is; what was reached is kept.
            NotAskedError: A step fails.
        """
        while self.steps < steps:
            self.deadline.check()
            begun = time.perf_counter()
            count = min(EVERY, steps - self.steps)
            if not self._over:
                seed_all(self.seed * 100_003 + self.steps)
                for _ in range(count):
                    self.losses.append(self.training.step(next(self._stream)))
            self.steps += count
            self._look()
            self.seconds += time.perf_counter() - begun

    def _look(self) -> None:
        """A training whose loss is no number any more does not come back."""
        self.rates[self.steps] = highest_rate(self.training.optimizer)
        if not self._over:
            held = self.training.evaluate(self.batches.held)
            seen = held if self.batches.seen is self.batches.held else self.training.evaluate(self.batches.seen)
            self.held[self.steps], self.seen[self.steps] = self.unit.share(held), self.unit.share(seen)
            self.loss[self.steps] = held
            self._over = not math.isfinite(held) and self.steps > 0
        else:
            self.loss[self.steps] = math.inf
            self.held[self.steps] = self.seen[self.steps] = 0.0

    @property
    def leaps(self) -> bool:
        """Whether the training's loss jumped once: by more than the way from a guess to the floor, or to no number."""
        way = self.unit.guess - self.unit.floor
        return any(not after - before <= way for before, after in itertools.pairwise(self.losses))

    @property
    def is_under_floor(self) -> bool:
        """Whether a loss was less than the best outputs have."""
        return any(loss < self.unit.floor - UNDER * (self.unit.guess - self.unit.floor) for loss in self.loss.values())

    @property
    def gap(self) -> float:
        """How much less of the way has been come in evaluation mode than in the last steps of the training."""
        last = [loss for loss in self.losses[-EVERY:] if math.isfinite(loss)]
        return self.unit.share(statistics.fmean(last)) - self.seen[self.steps] if last else 0.0

    def close(self) -> None:
        """It is not gone on with: what it holds of the network is let go."""
        self.training = None

    def best(self, first: int, last: int) -> tuple[float, float]:
        """The best shares, held back and seen, between two steps; of a training that falls apart what it keeps."""
        return self._between(self._end(last) if self.falls_apart(last) else first, last)

    def falls_apart(self, last: int) -> bool:
        """Whether in the last quarter of so many steps it is nowhere near its best any more."""
        best, kept = self._between(0, last), self._between(self._end(last), last)
        return min(before - after for before, after in zip(best, kept, strict=True)) > LOST

    def warms_up(self, last: int) -> bool:
        """Whether its learning rate still rises after so many steps."""
        return self.rates[last] > max(rate for step, rate in self.rates.items() if step <= self._end(last))

    @staticmethod
    def _end(last: int) -> int:
        return last - last // 4

    def _between(self, first: int, last: int) -> tuple[float, float]:
        at = [step for step in self.held if first <= step <= last]
        return max(self.held[step] for step in at), max(self.seen[step] for step in at)

    @property
    def share(self) -> float:
        """Where it stands."""
        return self.held[self.steps]


def seed_all(seed: int) -> None:
    """Random numbers of Python, NumPy and torch; within what keeps those of the user."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
