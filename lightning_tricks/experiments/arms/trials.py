"""Trials: every arm against the unchanged training, by a rule that healthy trainings do not pass.

An arm counts only if after k steps it beats the best point of the unchanged training between k and 4 k steps, on two
seeds, on batches that are held back; the ones that are not a mere undoing also on batches that were trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lightning_tricks.experiments.arms.arm import SIMPLEST_FIRST, Arm, Group, Setting
from lightning_tricks.experiments.arms.batches import Batches, concatenated
from lightning_tricks.experiments.arms.course import Course, Deadline, TimeIsUpError, Unit, seed_all
from lightning_tricks.experiments.arms.places import Places
from lightning_tricks.experiments.arms.rates import FARTHEST, RATES, STEP, rate
from lightning_tricks.experiments.free_outputs import free_outputs, share
from lightning_tricks.experiments.patterns import NotAskedError
from lightning_tricks.experiments.training.training import Training

SORT, DECLARE, HANDICAP = 60, 200, 4  # steps to sort arms, to declare one, and how many times longer the other may take
SEEDS = (0, 1)
LEARNED = 0.85  # of the way: from here on no change has room to show itself
READING = 0.2  # of the time at most
SAME = 1e-5  # of a loss: what changes by less does not change
DECLARED = 5  # arms at most that are tried for longer
# Healthy trainings fall short of these: lower rates and rebuilt networks win a little where one merely overfits.
GAIN: dict[Group, float] = {"undo": 0.05, "lower": 0.10, "higher": 0.15, "rebuild": 0.10}
# Held back alone: a gain so large is no lesser overfitting of a healthy network.
CLEAR = 0.3
NEARLY = 0.9  # of the best gain: the least change that brings so much is taken
ENOUGH: dict[Group, float] = {"undo": 0.5, "lower": 0.75, "higher": 0.75, "rebuild": 1.0}  # of the best gain, to win
Notice = Callable[[str], None]


def _silent(text: str) -> None:
    return None


@dataclass(eq=False)
class Trial:
    """An arm and what came of it.

    Args:
        arm: The change.
        gain: In shares of the way over the handicapped unchanged training; of two seeds the smaller.
        share, base: Of the arm, and the best of the unchanged training, where they were compared.
        proven: Whether it passed.
        declared: Whether it was tried on two seeds.
        reason: Why it could not be tried.
        courses: Of the arm, by seed.
    """

    arm: Arm
    gain: float = 0.0
    share: float = 0.0
    base: float = 0.0
    proven: bool = False
    declared: bool = False
    reason: str = ""
    courses: dict[int, Course] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        return sum(course.steps for course in self.courses.values())


class Trials:
    """Courses of the unchanged training, and of arms beside it.

    Args:
        training: The unchanged one; it is copied and stays.
        setting: What arms know of it.
        unit: Of its loss.
        deadline: When to stop; what is known then is kept.
        notice: Called with a line whenever something begins.
    """

    def __init__(
        self,
        training: Training,
        setting: Setting,
        unit: Unit,
        deadline: Deadline,
        notice: Notice = _silent,
    ) -> None:
        self.training, self.setting, self.unit, self.deadline, self.notice = training, setting, unit, deadline, notice
        self.bases: dict[int, Course] = {}
        self.trials: list[Trial] = []
        self.complete = True

    def base(self, seed: int = 0) -> Course:
        """The unchanged training."""
        if seed not in self.bases:
            self.bases[seed] = self._course(self.training.copy(), self.setting.batches, seed)
        return self.bases[seed]

    def run(self, arms: Iterable[Arm], rates: Sequence[str] | None = None, *, always: bool = False) -> list[Trial]:
        """Sort the arms, try the best for longer; Ctrl-C and the end of the time keep what is known.

        Args:
            arms: The changes.
            rates: Which ways the learning rate is climbed; None for both.
            always: Also where the unchanged training has learned what there is.
        """
        try:
            self.notice("unchanged")
            self.base().run(HANDICAP * SORT)
            if always or self.base().best(SORT, HANDICAP * SORT)[0] < LEARNED:
                self._sort(arms, RATES if rates is None else rates)
                self._declare()
        except (TimeIsUpError, KeyboardInterrupt) as error:
            self.complete = False
            if isinstance(error, KeyboardInterrupt):
                self.deadline.seconds = 0.0
        return self.trials

    def _sort(self, arms: Iterable[Arm], rates: Sequence[str]) -> None:
        """Half of the time is left for those that are promising."""
        until = self.deadline.left / 2
        for arm in arms:
            if self.deadline.left > until:
                self.try_arm(arm)
            else:
                self.complete = False
        for name in rates:
            self._climb(1 / STEP if name.startswith("lower") else STEP, until)

    def try_arm(self, arm: Arm) -> Trial | None:
        """An arm after few steps, on one seed; None where it changes nothing here."""
        trial = Trial(arm)
        try:
            if not arm.concerns(self.training, self.setting):
                return None
            self.notice(arm.name)
            self._reach(trial, 0, SORT)
        except NotAskedError as error:
            trial.reason = str(error)
        self.trials.append(trial)
        if trial.gain <= 0:
            self._close(trial)
        return trial

    def _close(self, trial: Trial) -> None:
        for course in trial.courses.values():
            course.close()

    def _climb(self, step: float, until: float) -> None:
        """Learning rates ever farther away, as long as the next one does better."""
        factor, best = step, self.base().loss[SORT]
        while 1 / FARTHEST <= factor <= FARTHEST and self.deadline.left > until:
            trial = self.try_arm(rate(factor))
            loss = math.inf if trial is None or trial.reason else trial.courses[0].loss[SORT]
            on_the_way_down = step < 1 and not math.isfinite(loss)
            if not loss < best - SAME * abs(best) and not on_the_way_down:
                break
            factor, best = factor * step, loss

    def _declare(self) -> None:
        """The best arms again for longer and on two seeds; of the rates in one direction only the best."""
        promising = self._promising()
        for trial in self.trials:
            if trial not in promising:
                self._close(trial)
        for trial in promising:
            self.notice(f"{trial.arm.name}, for longer")
            try:
                self.declare(trial)
            except NotAskedError as error:
                trial.reason = str(error)
            if not trial.proven:
                self._close(trial)

    def _promising(self) -> list[Trial]:
        found, groups = list[Trial](), set[str]()
        for trial in sorted(self.trials, key=lambda each: -each.gain):
            group = trial.arm.group
            if trial.reason or trial.gain <= 0 or (group in ("lower", "higher") and trial.arm.name in groups):
                continue
            groups.add(trial.arm.name)
            found.append(trial)
        return found[:DECLARED]

    def declare(self, trial: Trial) -> None:
        """Whether an arm gains, by the rule."""
        gains, needs = list[float](), GAIN[trial.arm.group]
        for seed in SEEDS:
            self._reach(trial, seed, DECLARE)
            gains.append(trial.gain)
            seen = trial.courses[seed].seen[DECLARE] - self.base(seed).best(DECLARE, HANDICAP * DECLARE)[1]
            clear = trial.arm.group == "undo" or seen > needs or trial.gain > CLEAR
            if trial.gain <= needs or not clear:
                trial.gain = min(gains)
                return
        trial.gain, trial.declared, trial.proven = min(gains), True, True

    def _reach(self, trial: Trial, seed: int, steps: int) -> None:
        """Both trainings so far, and the gain there."""
        course = trial.courses.get(seed) or self._changed(trial.arm, seed)
        trial.courses[seed] = course
        course.run(steps)
        base = self.base(seed)
        base.run(HANDICAP * steps)
        trial.share, trial.base = course.held[steps], base.best(steps, HANDICAP * steps)[0]
        trial.gain = trial.share - trial.base

    def _changed(self, arm: Arm, seed: int) -> Course:
        training = self.training.copy()
        seed_all(seed)
        arm.change(training, self.setting)
        batches = self.setting.batches if arm.batches is None else arm.batches(self.setting.batches)
        return self._course(training, batches, seed)

    def _course(self, training: Training, batches: Batches, seed: int) -> Course:
        self.deadline.check()
        return Course(training, batches, self.unit, seed, self.deadline)

    @property
    def best(self) -> float:
        """How far the unchanged training has come at its best."""
        return max(self.bases[0].held.values()) if 0 in self.bases else 0.0

    def onto(self, trial: Trial) -> Trials:
        """Trials on top of an arm that was proven: its courses are those of the unchanged training."""
        training = self.training.copy()
        seed_all(0)
        trial.arm.change(training, self.setting)
        batches = self.setting.batches if trial.arm.batches is None else trial.arm.batches(self.setting.batches)
        setting = replace(self.setting, batches=batches)
        other = Trials(training, setting, self.unit, self.deadline, self.notice)
        other.bases = dict(trial.courses)
        return other


def cause_of(trials: Sequence[Trial]) -> Trial | None:
    """The simplest proven change: an undoing with half of the best gain, before rates, before what is rebuilt."""
    return simplest(trials, ENOUGH)


def simplest(trials: Sequence[Trial], enough: Mapping[Group, float]) -> Trial | None:
    """The first change of the first group that has enough of the best gain of all, and nearly the best of its group."""
    proven = [trial for trial in trials if trial.proven]
    best = max((trial.gain for trial in proven), default=0.0)
    for group in SIMPLEST_FIRST:
        those = [trial for trial in proven if trial.arm.group == group and trial.gain >= enough[group] * best]
        if those:
            most = max(trial.gain for trial in those)
            return next(trial for trial in those if trial.gain >= NEARLY * most)
    return None


def unit_of(training: Training, batches: Batches) -> Unit:
    """Guess and floor of the training's loss, on batches that are held back.

    Raises:
        NotAskedError: It has none: it is drawn at random, has no lower bound, or a guess is perfect.
    """
    try:
        batch = concatenated(batches.held) if len(batches.held) > 1 else batches.held[0]
    except NotAskedError:
        batch = batches.held[0]
    found = free_outputs(training, batch)
    if not found.conclusive:
        raise NotAskedError(f"how far it comes has no measure: {found.answer}")
    unit = Unit(found.numbers["guess"], found.numbers["floor"])
    if not math.isfinite(share(unit.guess, unit.guess, unit.floor)):
        raise NotAskedError("a guess loses no more than the best outputs")
    return unit


def prepared(
    training: Training,
    data: Any,
    ruined: bool,
    deadline: Deadline,
    notice: Notice = _silent,
    unit: Mapping[str, float] | None = None,
) -> Trials:
    """Trials of a training on data that are read once; ``guess`` and ``floor`` of its loss where they are known.

    Raises:
        NotAskedError: It cannot be tried.
    """
    batches = data if isinstance(data, Batches) else Batches.of(data, READING * deadline.seconds)
    places = Places.of(training.copy(), batches.train[0])
    known = Unit(unit["guess"], unit["floor"]) if unit else unit_of(training.copy(), batches)
    return Trials(training, Setting(batches, places, ruined), known, deadline, notice)
