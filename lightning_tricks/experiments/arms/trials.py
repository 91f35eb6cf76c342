"""Trials: every arm against the unchanged training, by a rule that healthy trainings do not pass.

An arm counts only if after k steps it beats the best point of the unchanged training between k and 4 k steps, on two
seeds, on batches that are held back; the ones that are not a mere undoing also on batches that were trained on.

Steps are saved where they cannot change what is found: an arm that moves nothing is dropped at the first look, the
simplest changes are tried first, and nothing further once one of them leaves no room for a better one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from lightning_tricks.experiments.arms.arm import Arm, Group, Setting
from lightning_tricks.experiments.arms.kinds.rates import FARTHEST, RATES, STEP, rate
from lightning_tricks.experiments.arms.training_run import LossUnit, seed_all
from lightning_tricks.experiments.arms.training_runs import HANDICAP, LEAST_HANDICAP, TrainingRuns
from lightning_tricks.experiments.arms.trial import ENOUGH, GAIN, NEARLY, Trial
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training.deadline import Deadline, TimeIsUpError
from lightning_tricks.experiments.training.training import Training

LOOK, SORT, DECLARE = 20, 60, 200  # steps to drop an arm, to sort those that are left, to declare one
SHORTEST = 40  # steps after which anything is declared
SEEDS = (0, 1)
LEARNED = 0.85  # of the way: from here on no change has room to show itself
SAME = 1e-5  # of a loss: what changes by less does not change
LONGER = 3  # times as many steps as others gets what warnings ask for, where nothing else is proven
DECLARED = 3  # arms at most of a stage that are tried for longer
# A gain so large is no lesser overfitting of a healthy network where it is measured on held-back batches alone, and
# needs no longer trial where the unchanged training stands still: slow starts of healthy ones gained .07 of the way in
# the second half of 240 steps, and all of it later.
CLEAR = 0.3
LEAD = 0.1  # of the way, over the unchanged training after as many steps: no gain yet, but one to be looked at
Stage = tuple[Group, ...]
STAGES: tuple[Stage, ...] = (("undo",), ("lower", "higher"), ("rebuild",))
Notice = Callable[[str], None]


def silent(text: str) -> None:
    """Say nothing."""


class Trials(TrainingRuns):
    """Arms beside the unchanged training, in the order in which they save most.

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
        unit: LossUnit,
        deadline: Deadline,
        notice: Notice = silent,
    ) -> None:
        super().__init__(training, setting, unit, deadline)
        self.notice, self.trials, self.complete = notice, list[Trial](), True
        self.advised: Collection[str] = ()
        self.always = False
        # The unchanged training is compared as far as it is meant to go: what it would reach later helps nobody.
        planned = training.planned_steps // LOOK * LOOK
        self.farthest = min(HANDICAP * DECLARE, max(LEAST_HANDICAP * SHORTEST, planned))
        self.until = min(DECLARE, LOOK * math.ceil(self.farthest / (HANDICAP * LOOK)))
        self.sort = min(SORT, self.until)
        self.look = min(LOOK, self.sort)

    def run(
        self,
        arms: Iterable[Arm],
        rates: Sequence[str] | None = None,
        *,
        always: bool = False,
        enough: Mapping[Group, float] = ENOUGH,
        advised: Collection[str] = (),
        learned: float = LEARNED,
        undone: float = LEARNED,
    ) -> list[Trial]:
        """Sort the arms, try the best for longer; Ctrl-C and the end of the time keep what is known.

        Args:
            arms: The changes.
            rates: Which ways the learning rate is climbed; None for both.
            always: Also where the unchanged training has learned what there is, and all, whatever is proven.
            enough: Of the best gain, for a change to be preferred to less simple ones.
            advised: Actions that warnings ask for. They are not dropped at the first look, as what is right may begin
                slower; where nothing is proven they get three quarters of the unchanged training's steps, not one;
                and with half of the best gain, if they undo something, they are preferred.
            learned: Share of the way at which the unchanged training needs no change.
            undone: Share of the way at which it is only asked whether something is to be undone: at another learning
                rate, or rebuilt, it may come farther, and it is no fault that it does not.
        """
        self.advised, self.always = advised, always
        try:
            self.notice("unchanged")
            self.begin(self.last(self.sort))
            come = 0.0 if always else self.base().best(self.sort, self.last(self.sort))[0]
            if come < learned:
                stages = STAGES if come < undone else STAGES[:1]
                self._run(list(arms), RATES if rates is None else rates, {} if always else enough, stages)
        except (TimeIsUpError, KeyboardInterrupt) as error:
            self.complete = False
            if isinstance(error, KeyboardInterrupt):
                self.deadline.seconds = 0.0
        return self.trials

    def _run(
        self, arms: Sequence[Arm], rates: Sequence[str], enough: Mapping[Group, float], stages: Sequence[Stage]
    ) -> None:
        for stage in stages:
            begun = len(self.trials)
            for arm in arms:
                if arm.group in stage and self._settled(self.try_arm(arm), enough):
                    return
            for name in rates if "higher" in stage else ():
                if name.startswith("lower") or self.always or not self._seen().warms_up:  # else it rises by itself
                    self._climb(1 / STEP if name.startswith("lower") else STEP)
            self._declare(self.trials[begun:], everything=not enough)
            if any(trial.proven and self._is_enough(trial, enough) for trial in self.trials):
                return
        self._declare_late()

    def _settled(self, trial: Trial | None, enough: Mapping[Group, float]) -> bool:
        """Whether an arm is proven at once, and leaves no other of its kind room to be preferred."""
        if not enough or trial is None or not trial.promises or trial.share < LEARNED:
            return False
        self._declare([trial])
        return trial.proven

    def _is_enough(self, trial: Trial, enough: Mapping[Group, float]) -> bool:
        most = max(1.0 - trial.base, trial.gain)
        return bool(enough) and (trial.share >= LEARNED or trial.gain >= enough[trial.arm.group] * most)

    def try_arm(self, arm: Arm) -> Trial | None:
        """An arm after few steps, on one seed; None where it changes nothing here."""
        trial = self._begun(arm)
        if trial is not None and not trial.reason:
            self._sort(trial)
        return trial

    def _begun(self, arm: Arm) -> Trial | None:
        """As far as the first look."""
        trial = Trial(arm, advised=arm.action in self.advised)
        try:
            left = arm.meant and not trial.advised and not self.always
            if left or not arm.concerns(self.training, self._seen()):
                return None
            trial.arm = arm.worded(self.training, self.setting)
            self.notice(arm.name)
            trial.place = arm.layer(self.setting)
            self.reach(trial, 0, self.look)
        except NotAskedError as error:
            trial.reason = str(error)
        self.trials.append(trial)
        return trial

    def _seen(self) -> Setting:
        """The setting with what the unchanged training shows."""
        base = self.base()
        return replace(self.setting, leaps=base.leaps, gap=base.gap, warms_up=base.warms_up(base.steps))

    def _sort(self, trial: Trial) -> None:
        """On, if it does better at the first look than the unchanged training at its worst until then."""
        trial.dropped = not self._loss(trial) < self._worst and not trial.advised
        try:
            if not trial.dropped:
                self.reach(trial, 0, self.sort)
        except NotAskedError as error:
            trial.reason = str(error)
        if not trial.promises and not self._leads(trial):
            trial.close()

    def _leads(self, trial: Trial) -> bool:
        """Whether it is ahead of the unchanged training after as many steps, not after four times as many."""
        if trial.dropped or trial.reason:
            return False
        return trial.runs[0].held[self.sort] - self.base().held[self.sort] > LEAD

    def _loss(self, trial: Trial) -> float:
        return trial.runs[0].loss[self.look]

    @property
    def _worst(self) -> float:
        losses = [loss for step, loss in self.base().loss.items() if self.look <= step <= HANDICAP * self.look]
        return max(loss - SAME * abs(loss) if math.isfinite(loss) else math.inf for loss in losses)

    def _climb(self, step: float) -> None:
        """Learning rates ever farther away, as long as the next one does better; the last two are sorted."""
        factor, best, better = step, self._worst, list[Trial]()
        while 1 / FARTHEST <= factor <= FARTHEST:
            trial = self._begun(rate(factor))
            if trial is None or trial.reason:
                break
            loss = self._loss(trial)
            if not loss < best:
                trial.dropped = True
                trial.close()
                standing = step > 1 and not better and abs(loss - best) <= 2 * SAME * abs(best)
                if not standing and not (step < 1 and not math.isfinite(loss)):
                    break
            else:
                better.append(trial)
                best = loss - SAME * abs(loss)
            factor *= step
        for trial in better[:-2]:
            trial.dropped = True
            trial.close()
        for trial in better[-2:]:
            self._sort(trial)

    def _declare(self, trials: Sequence[Trial], *, everything: bool = False) -> None:
        """The best arms for longer and on two seeds: nearly as good ones in their order, until one is proven."""
        promising = [trial for trial in trials if trial.promises and not trial.declared]
        best = max((trial.gain for trial in promising), default=0.0)
        promising.sort(key=lambda trial: min(best * NEARLY, trial.gain), reverse=True)
        for trial in promising if everything else promising[:DECLARED]:
            self.notice(f"{trial.arm.name}, for longer")
            try:
                self.declare(trial)
            except NotAskedError as error:
                trial.reason = str(error)
            if trial.proven and not everything:
                break
        for trial in trials:
            if not trial.proven and (trial.declared or not self._leads(trial)):
                trial.close()

    def _declare_late(self) -> None:
        """Where nothing is proven, the arm that is farthest ahead after as many steps: it may need more of them."""
        leading = [trial for trial in self.trials if not trial.declared and self._leads(trial)]
        leading.sort(key=lambda trial: trial.share, reverse=True)
        if self.sort < self.until:
            self._declare_first(leading, self.until)
        self._declare_first([each for each in leading if each.advised], min(LONGER * self.until, self.farthest))
        for trial in leading:
            if not trial.proven:
                trial.close()

    def _declare_first(self, leading: Sequence[Trial], steps: int) -> None:
        """The first of those that lead, as long as nothing is proven."""
        if not leading or any(trial.proven for trial in self.trials):
            return
        self.notice(f"{leading[0].arm.name}, for longer")
        try:
            self.declare(leading[0], steps)
        except NotAskedError as error:
            leading[0].reason = str(error)

    def declare(self, trial: Trial, steps: int | None = None) -> None:
        """Whether an arm gains, by the rule: clearly after few steps, or after more, ``until`` or as many as given."""
        trial.declared, steps = True, self.until if steps is None else steps
        if self.until < SHORTEST:
            return
        if SHORTEST <= self.sort < self.until == steps and self._clear(trial):
            trial.proven = True
            return
        needs, gains = GAIN[trial.arm.group], list[float]()
        for seed in SEEDS:
            seen = self.hold(trial, seed, steps, 2 * needs)
            gains.append(trial.gain)
            clear = trial.arm.group == "undo" or seen > needs or trial.gain > CLEAR
            if trial.gain <= needs or not clear:
                trial.gain = min(gains)
                return
        trial.gain, trial.proven = min(gains), True

    def _clear(self, trial: Trial) -> bool:
        gains = list[float]()
        for seed in SEEDS:
            self.reach(trial, seed, self.sort)
            gains.append(trial.gain)
            if trial.gain <= CLEAR or not self.stands_still(self.sort):
                trial.gain = min(gains)
                return False
        trial.gain = min(gains)
        return True

    def onto(self, trial: Trial) -> Trials:
        """Trials on top of an arm that was proven: its runs are those of the unchanged training."""
        training = self.training.copy()
        seed_all(0)
        trial.arm.change(training, self.setting)
        batches = self.setting.batches if trial.arm.batches is None else trial.arm.batches(self.setting.batches)
        setting = replace(self.setting, batches=batches)
        other = Trials(training, setting, self.unit, self.deadline, self.notice)
        other.bases = dict(trial.runs)
        return other
