"""Runs of the unchanged training and of arms, run as far as they are compared."""

from __future__ import annotations

import math
import sys

from lightning_tricks.experiments.arms.arm import Arm, Setting
from lightning_tricks.experiments.arms.batches import Batches
from lightning_tricks.experiments.arms.own_targets import refuse_moving_targets
from lightning_tricks.experiments.arms.training_run import LossUnit, TrainingRun, seed_all
from lightning_tricks.experiments.arms.trial import Trial
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training.deadline import Deadline
from lightning_tricks.experiments.training.training import Training

HANDICAP = 4  # times as many steps as an arm has the unchanged training
STILL = 0.02  # of the way, in the second half of the steps: nothing
LEAST_HANDICAP = 3  # and at least so many, where it is not meant to go on for longer


class TrainingRuns:
    """One of the unchanged training for every seed that is asked for, and one of an arm for every seed of a trial.

    Args:
        training: The unchanged one; it is copied and stays.
        setting: What arms know of it.
        unit: Of its loss.
        deadline: When to stop.
    """

    def __init__(self, training: Training, setting: Setting, unit: LossUnit, deadline: Deadline) -> None:
        self.training, self.setting, self.unit, self.deadline = training, setting, unit, deadline
        self.bases: dict[int, TrainingRun] = {}
        self.farthest = sys.maxsize  # steps that the unchanged training is run at most

    def base(self, seed: int = 0) -> TrainingRun:
        """The unchanged training."""
        if seed not in self.bases:
            self.bases[seed] = self._run_of(self.training.copy(), self.setting.batches, seed)
        return self.bases[seed]

    def begin(self, steps: int) -> None:
        """The unchanged training so far; its loss has to say how far it comes."""
        self.base().train_until(steps)
        refuse_moving_targets(self.training, self.base().training, self.setting.batches.held[0])

    @property
    def best(self) -> float:
        """How far the unchanged training has come at its best, or what it keeps of that."""
        return self.bases[0].best(0, self.bases[0].steps)[0] if 0 in self.bases else 0.0

    def reach(self, trial: Trial, seed: int, steps: int, near: float = 0.0) -> float:
        """Both trainings so far, and the gain there; the one on seen batches is returned.

        Where the gain of another seed comes so near, the unchanged training is run with that one, too.
        """
        changed = trial.runs.get(seed) or self._changed(trial.arm, seed)
        trial.runs[seed] = changed
        changed.train_until(steps)
        if changed.is_under_floor:
            raise NotAskedError("with it the loss is no longer measured in the same unit")
        bases, last = [self.base()], self.last(steps)
        while True:
            for base in bases:
                base.train_until(last)
            best, seen = (max(pair) for pair in zip(*(b.best(steps, last) for b in bases), strict=True))
            trial.share, trial.base, trial.times = changed.held[steps], best, last / steps
            trial.gain = trial.share - trial.base
            if seed == 0 or trial.gain > near or len(bases) > 1:
                return changed.seen[steps] - seen
            bases.append(self.base(seed))

    def last(self, steps: int) -> int:
        """How far the unchanged training is run beside so many steps of an arm."""
        return min(HANDICAP * steps, self.farthest)

    def hold(self, trial: Trial, seed: int, steps: int, near: float = 0.0) -> float:
        """The same; where the unchanged training falls apart after a while, the change has to hold for as long."""
        gain_seen, last = self.reach(trial, seed, steps, near), self.last(steps)
        if not self.base().falls_apart(last):
            return gain_seen
        changed = trial.runs[seed]
        changed.train_until(last)
        held, seen = changed.best(steps, last)
        trial.gain += held - trial.share
        trial.share = held
        return gain_seen + seen - changed.seen[steps]

    def stands_still(self, steps: int) -> bool:
        """Whether the unchanged training beside so many steps of an arm gains nothing, and had nothing to lose."""
        last = self.last(steps)
        return self._growth(last) <= STILL and not self.base().falls_apart(last)

    def _growth(self, last: int) -> float:
        """What the unchanged training has gained in the second half of its steps, on its way to a guess as well."""
        known = [(step, loss) for step, loss in self.base().loss.items() if 0 < step <= last]
        first = min((loss for step, loss in known if step <= last // 2), default=math.inf)
        second = min((loss for step, loss in known if step >= last // 2), default=math.inf)
        fallen = first - second
        return max(0.0, fallen / (self.unit.guess - self.unit.floor)) if math.isfinite(fallen) else 0.0

    def _changed(self, arm: Arm, seed: int) -> TrainingRun:
        training = self.training.copy()
        seed_all(seed)
        arm.change(training, self.setting)
        batches = self.setting.batches if arm.batches is None else arm.batches(self.setting.batches)
        return self._run_of(training, batches, seed)

    def _run_of(self, training: Training, batches: Batches, seed: int) -> TrainingRun:
        self.deadline.check()
        return TrainingRun(training, batches, self.unit, seed, self.deadline)
