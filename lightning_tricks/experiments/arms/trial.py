"""A trial: one arm beside the unchanged training, what it takes to be proven, and which proven one is the cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lightning_tricks.experiments.arms.arm import SIMPLEST_FIRST, Arm, Group
from lightning_tricks.experiments.arms.training_run import TrainingRun

# Healthy trainings fall short of these: lower rates and rebuilt networks win a little where one merely overfits.
GAIN: dict[Group, float] = {"undo": 0.05, "lower": 0.10, "higher": 0.15, "rebuild": 0.10}
NEARLY = 0.9  # of the best gain: the least change that brings so much is taken
ENOUGH: dict[Group, float] = {"undo": 0.5, "lower": 0.75, "higher": 0.75, "rebuild": 1.0}  # of the best gain, to win
LEAST: dict[Group, float] = dict.fromkeys(SIMPLEST_FIRST, NEARLY)  # the same, where as much as may be shall be gained


@dataclass(eq=False)
class Trial:
    """An arm and what came of it.

    Args:
        arm: The change.
        gain: In shares of the way over the handicapped unchanged training; of two seeds the smaller.
        share, base: Of the arm, and the best of the unchanged training, where they were compared.
        times: How many times as many steps the unchanged training had.
        proven: Whether it passed.
        declared: Whether it was tried on two seeds.
        dropped: Whether it was not gone on with after the first look.
        advised: Whether a warning asks for it.
        place: Where it changes something, as far as that is known.
        reason: Why it could not be tried.
        runs: Of the arm, by seed.
    """

    arm: Arm
    gain: float = 0.0
    share: float = 0.0
    base: float = 0.0
    times: float = 0.0
    proven: bool = False
    declared: bool = False
    dropped: bool = False
    advised: bool = False
    place: str | None = None
    reason: str = ""
    runs: dict[int, TrainingRun] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        return sum(run.steps for run in self.runs.values())

    @property
    def reached(self) -> int:
        """The steps after which it was compared, with the best of the unchanged training in ``times`` as many."""
        return max((run.steps for run in self.runs.values()), default=0)

    @property
    def promises(self) -> bool:
        """Whether it is worth a longer trial."""
        return not self.reason and not self.dropped and self.gain > 0

    def close(self) -> None:
        """It is not gone on with."""
        for run in self.runs.values():
            run.close()


def cause_of(trials: Sequence[Trial]) -> Trial | None:
    """The simplest proven change: an undoing with half of the best gain, before rates, before what is rebuilt."""
    return simplest(trials, ENOUGH)


def simplest(trials: Sequence[Trial], enough: Mapping[Group, float]) -> Trial | None:
    """The first change of the first group that has enough of the best gain of all, and nearly the best of its group.

    Enough of a change that a warning asks for is what is enough for a cause.
    """
    proven = [trial for trial in trials if trial.proven]
    best = max((trial.gain for trial in proven), default=0.0)
    for group in SIMPLEST_FIRST:
        named = [trial for trial in proven if trial.arm.group == group]
        those = [trial for trial in named if trial.gain >= (ENOUGH if trial.advised else enough)[group] * best]
        if those:
            most = max(trial.gain for trial in those)
            return next(trial for trial in those if trial.gain >= NEARLY * most)
    return None
