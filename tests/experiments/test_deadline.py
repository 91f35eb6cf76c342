"""The time that experiments are given is kept, also where a single step takes long; no test here waits."""

from __future__ import annotations

import importlib
import types
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lightning_tricks as lt
from lightning_tricks.experiments.asking import registry
from lightning_tricks.experiments.asking.registry import Subject
from lightning_tricks.experiments.training import Training, deadline
from lightning_tricks.experiments.training.deadline import Deadline, TimeIsUpError

checkup_module = importlib.import_module("lightning_tricks.checkup")
X = torch.randn(160, 6, generator=torch.Generator().manual_seed(0))
BATCHES = [(X[i : i + 16], (X[i : i + 16, 0] > 0).long()) for i in range(0, 160, 16)]


class Clock:
    """Goes on by a second whenever a loss is computed."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        self.now += 1.0
        return F.cross_entropy(output, target)

    def __deepcopy__(self, memo: Any) -> Clock:
        return self


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(deadline, "time", types.SimpleNamespace(perf_counter=found.perf_counter))
    return found


def stuck() -> nn.Sequential:
    """Learns nothing, so that everything is tried."""
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    nn.init.constant_(net[0].bias, -50.0)
    return net


def test_no_loss_is_computed_after_it(clock: Clock) -> None:
    training = Training.of(stuck(), clock.loss)
    training.deadline = Deadline(3.5)
    copied = training.copy()
    for _ in range(4):
        copied.step(BATCHES[0])
    with pytest.raises(TimeIsUpError):
        copied.step(BATCHES[0])
    with pytest.raises(TimeIsUpError):
        training.evaluate(BATCHES)
    assert clock.now == 4.0


@pytest.mark.parametrize("seconds", [5.0, 40.0, 150.0])
def test_a_checkup_keeps_it_with_slow_steps(clock: Clock, seconds: float) -> None:
    steps = 4
    diagnosis = lt.checkup(stuck(), BATCHES, clock.loss, num_batches=steps, max_seconds=seconds, progress=False)
    assert clock.now - steps <= 1.1 * seconds + 1.0
    assert clock.now > seconds  # it was used up
    assert not [each.answer for each in diagnosis.experiments if "Error" in each.answer]


@pytest.mark.parametrize("seconds", [5.0, 150.0])
def test_a_treatment_keeps_it(clock: Clock, seconds: float) -> None:
    treatment = lt.treat(stuck(), None, BATCHES, clock.loss, max_seconds=seconds)
    assert clock.now <= 1.1 * seconds + 1.0
    assert treatment.note == "cut short"


def test_of_weights_that_are_no_numbers_too(clock: Clock) -> None:
    net = stuck()
    nn.init.constant_(net[2].weight, torch.nan)
    assert lt.treat(net, None, BATCHES, clock.loss, max_seconds=5.0).note == "cut short"
    assert "no gradient" in lt.treat(net, None, BATCHES, lambda output, y: output.detach().sum()).note


def test_ctrl_c_ends_a_checkup_and_keeps_what_is_known() -> None:
    made = 0

    def loss_fn(output: Tensor, target: Tensor) -> Tensor:
        nonlocal made
        made += 1
        if made > 300:
            raise KeyboardInterrupt
        return F.cross_entropy(output, target)

    diagnosis = lt.checkup(stuck(), BATCHES, loss_fn, num_batches=4, max_seconds=1e9, progress=False)
    assert made == 301
    assert any(each.conclusive for each in diagnosis.experiments)


def test_a_subject_has_one_deadline_for_all() -> None:
    subject = Subject(stuck(), F.cross_entropy, None, BATCHES, BATCHES[:1], lt.Diagnosis([], []), after=stuck())
    assert subject.training.deadline is subject.trained.deadline is subject.deadline
    subject.deadline.seconds = 0.0
    assert subject.seconds_left <= 0


def test_steps_are_counted_over_all_copies() -> None:
    training = Training.of(stuck(), F.cross_entropy)
    training.deadline = Deadline(60.0, steps=3)
    for training_copy in (training.copy(), training.copy(), training.copy()):
        training_copy.step(BATCHES[0])
    with pytest.raises(TimeIsUpError, match="no steps were left"):
        training.step(BATCHES[0])


@pytest.mark.usefixtures("usual_trials")
@pytest.mark.parametrize("experiments", ["auto", "all"])
def test_a_checkup_takes_no_more_steps_than_four_trainings_unless_it_is_asked(
    experiments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (checkup_module, registry):
        monkeypatch.setattr(module, "planned_steps", lambda model, data: 160)
    found = lt.checkup(
        stuck(), BATCHES, F.cross_entropy, num_batches=4, experiments=experiments, max_seconds=1e9, progress=False
    )
    steps = sum(each.steps for each in found.experiments)
    assert (steps <= 4 * 160) == (experiments == "auto")
    assert steps > 3 * 160
    assert not found.healthy
