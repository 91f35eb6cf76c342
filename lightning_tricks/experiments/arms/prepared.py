"""What trials begin with: the data, read once, where in the network a change goes, the unit of the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning_tricks.experiments.arms.arm import Setting
from lightning_tricks.experiments.arms.batches import Batches, concatenated
from lightning_tricks.experiments.arms.own_targets import refuse_own_targets
from lightning_tricks.experiments.arms.places import Places
from lightning_tricks.experiments.arms.training_run import LossUnit
from lightning_tricks.experiments.arms.trials import Notice, Trials, silent
from lightning_tricks.experiments.free_outputs import free_outputs, share
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training.deadline import Deadline
from lightning_tricks.experiments.training.training import Training

READING = 0.2  # of the time at most


def loss_unit_of(training: Training, batches: Batches) -> LossUnit:
    """Guess and floor of the training's loss, on batches that are held back.

    Raises:
        NotAskedError: It has none: it is drawn at random, has no lower bound, or a guess is perfect.
        TimeIsUpError: It is.
    """
    try:
        batch = concatenated(batches.held) if len(batches.held) > 1 else batches.held[0]
    except NotAskedError:
        batch = batches.held[0]
    found = free_outputs(training, batch)
    if not found.conclusive:
        training.deadline.check()
        raise NotAskedError(f"how far it comes has no measure: {found.answer}")
    unit = LossUnit(found.numbers["guess"], found.numbers["floor"])
    if not math.isfinite(share(unit.guess, unit.guess, unit.floor)):
        raise NotAskedError("a guess loses no more than the best outputs")
    return unit


def prepared(
    training: Training,
    data: Any,
    ruined: bool,
    deadline: Deadline,
    notice: Notice = silent,
    unit: Mapping[str, float] | None = None,
) -> Trials:
    """Trials of a training on data that are read once; ``guess`` and ``floor`` of its loss where they are known.

    Raises:
        NotAskedError: It cannot be tried.
        TimeIsUpError: It is.
    """
    batches = data if isinstance(data, Batches) else Batches.of(data, READING * deadline.seconds)
    training.deadline = deadline
    places = Places.of(training.copy(), batches.train[0])
    refuse_own_targets(training.copy(), batches.train[0])
    known = LossUnit(unit["guess"], unit["floor"]) if unit else loss_unit_of(training.copy(), batches)
    return Trials(training, Setting(batches, places, ruined), known, deadline, notice)
