"""Which changes count, and which are tried at all: what is healthy gains nothing."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import pytest
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt
from lightning_tricks.experiments.arms import ARMS
from lightning_tricks.experiments.arms import trials as trials_module
from lightning_tricks.experiments.arms.arm import Arm
from lightning_tricks.experiments.arms.kinds.rates import rate
from lightning_tricks.experiments.arms.prepared import prepared
from lightning_tricks.experiments.arms.training_run import LossUnit
from lightning_tricks.experiments.arms.trial import Trial, cause_of
from lightning_tricks.experiments.training import Training
from lightning_tricks.experiments.training.deadline import Deadline
from lightning_tricks.experiments.training.plan import planned_steps
from tests.experiments.arms.planted import PLANTED, Lit, constant, loader, mlp, run

pytestmark = [pytest.mark.usefixtures("usual_trials"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def _shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials_module, "SORT", 20)
    monkeypatch.setattr(trials_module, "DECLARE", 60)


def test_what_moves_nothing_is_dropped_at_the_first_look() -> None:
    still = Arm("still", "rebuild", "initialize", "", lambda training, setting: training.scale_lr(0.0))
    trials = prepared(Training.of(Lit(mlp())), loader(), False, Deadline(60))
    trials.look = 10
    trials.run([still], (), always=True)
    (trial,) = trials.trials
    assert trial.dropped
    assert trial.steps == 10
    assert not trial.promises


def test_nothing_further_is_tried_where_a_simple_change_leaves_no_room() -> None:
    make, data = PLANTED["no_decay"]
    trials = prepared(Training.of(make()), data(), False, Deadline(60))
    trials.run(ARMS)
    cause = cause_of(trials.trials)
    assert cause is not None
    assert cause.arm.name == "no_decay"
    assert {trial.arm.group for trial in trials.trials} == {"undo"}


def test_clipping_is_tried_only_where_the_loss_leaps() -> None:
    clip = next(arm for arm in ARMS if arm.name == "clip")
    calm = prepared(Training.of(Lit(mlp())), loader(), False, Deadline(60))
    calm.run([clip], (), always=True)
    assert calm.trials == []
    wild = prepared(Training.of(Lit(mlp(), lr=1000.0)), loader(), False, Deadline(60))
    wild.run([clip], (), always=True)
    assert [trial.arm.name for trial in wild.trials] == ["clip"]


def test_trials_are_no_longer_than_the_training_is_meant_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials_module, "DECLARE", 200)
    lengths = {}
    for epochs in (1, 6, 8, 10, 1000):
        module = Lit(mlp())
        module.trainer = L.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False)
        training = Training.of(module, planned_steps=planned_steps(module, loader()))
        trials = prepared(training, loader(), False, Deadline(60))
        lengths[epochs] = trials.until, trials.farthest
    # Epochs of 24 batches: a quarter of them all, beside them all.
    assert lengths == {1: (40, 120), 6: (40, 140), 8: (60, 180), 10: (60, 240), 1000: (200, 800)}
    assert planned_steps(mlp(), loader()) == 1000


@pytest.mark.parametrize(("name", "steps"), [("reset_biases", 120), ("initialize", 400)])
def test_a_clear_gain_needs_no_longer_trial_where_nothing_moves(
    name: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead units stand still; equal weights are on their way, if slowly, and are compared for longer."""
    monkeypatch.setattr(trials_module, "SORT", 60)
    monkeypatch.setattr(trials_module, "DECLARE", 200)
    _, trial = run(name, next(arm for arm in ARMS if arm.name == name))
    assert trial.proven
    assert trial.steps == steps


def test_the_text_names_the_units_that_are_swapped() -> None:
    arm = next(arm for arm in ARMS if arm.name == "self_normalize")
    trials = prepared(Training.of(Lit(mlp(activation=nn.Sigmoid))), loader(), False, Deadline(60))
    trials.run([arm], (), always=True)
    assert trials.trials[0].arm.text.endswith("lt.surgery.self_normalize(model, old='sigmoid')")


def test_short_trials_claim_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials_module, "DECLARE", 20)
    _, trial = run("initialize", next(arm for arm in ARMS if arm.name == "initialize"))
    assert trial.gain > 0.05
    assert not trial.proven


def test_a_loss_that_measures_something_else_is_no_gain() -> None:
    def loss_of_raw(training: Training, setting: Any) -> None:
        training.loss_fn = lambda output, y: F.cross_entropy(output, y) - 10.0

    other = Arm("other", "undo", "initialize", "", loss_of_raw)
    training = Training.of(mlp(), F.cross_entropy)
    trials = prepared(training, loader(), False, Deadline(60))
    trials.run([other], (), always=True)
    assert "same unit" in trials.trials[0].reason


@pytest.mark.parametrize(("lr", "named"), [(1e-6, "raise_learning_rate"), (30.0, "lower_learning_rate")])
def test_rates_are_climbed_while_it_improves(lr: float, named: str) -> None:
    trials = prepared(Training.of(Lit(mlp(), lr=lr)), loader(), False, Deadline(60))
    trials.run([])
    cause = cause_of(trials.trials)
    assert cause is not None
    assert cause.arm.name == named
    advised = cause.arm.advice(cause.runs[0].training, trials.setting)["lr"]
    assert 3e-4 < advised < 0.3


def test_a_healthy_training_gains_nothing() -> None:
    trials = prepared(Training.of(Lit(mlp(nn.BatchNorm1d(24)))), loader(), False, Deadline(60))
    trials.run(ARMS, always=True)
    assert cause_of(trials.trials) is None
    assert trials.complete


def test_what_learns_is_left_alone_at_once() -> None:
    trials = prepared(Training.of(Lit(mlp())), loader(), False, Deadline(60))
    trials.bases[0] = trials.base()
    trials.base().train_until(240)
    trials.run(ARMS)
    assert trials.trials == []


def test_the_unchanged_training_may_take_four_times_as_long() -> None:
    """Twice as fast is no gain: the other gets there too."""
    trials = prepared(Training.of(Lit(mlp(), lr=0.01)), loader(), False, Deadline(60))
    trials.run([rate(2.0)], (), always=True)
    (trial,) = trials.trials
    assert not trial.proven
    assert trials.base().steps >= 4 * trial.runs[0].steps


def arm(name: str, group: Any) -> Arm:
    return Arm(name, group, "initialize", "", lambda training, setting: None)


def test_the_simplest_cause_wins() -> None:
    undo, lower = Trial(arm("a", "undo"), 0.4, proven=True), Trial(arm("b", "lower"), 0.6, proven=True)
    rebuild = Trial(arm("c", "rebuild"), 0.7, proven=True)
    assert cause_of([rebuild, lower, undo]) is undo
    undo.gain = 0.3
    assert cause_of([rebuild, lower, undo]) is lower
    lower.gain = 0.5
    assert cause_of([rebuild, lower, undo]) is rebuild
    rebuild.proven = False
    assert cause_of([rebuild, lower, undo]) is undo
    assert cause_of([]) is None


def test_worse_than_a_guess_is_as_bad_as_one() -> None:
    assert LossUnit(2.0, 0.0).share(50.0) == LossUnit(2.0, 0.0).share(float("nan")) == 0.0


def test_changes_is_an_experiment_of_its_own() -> None:
    found = lt.experiments.changes(Lit(constant(mlp())), loader(), names=["initialize", "leaky_relu"])
    assert found.conclusive
    assert found.numbers["gain of initialize"] > 0.3
    assert "gain of leaky_relu" not in found.numbers
    assert found.steps > 200
    assert set(found.curves) == {"unchanged", "initialize", "leaky_relu"}
    with pytest.raises(TypeError, match="did you mean 'initialize'"):
        lt.experiments.changes(Lit(mlp()), loader(), names=["initialise"])


def test_a_checkup_proves_and_brings() -> None:
    diagnosis = lt.checkup(Lit(mlp(), lr=1e-6), loader(), progress=False)
    changes = next(each for each in diagnosis.experiments if each.name == "changes")
    assert "raise the learning rate" in changes.answer
    finding = next(each for each in diagnosis.findings if each.problem == "learning_rate_too_low")
    assert finding.proof is not None
    assert finding.proof.name == "changes"
    assert not diagnosis.healthy
