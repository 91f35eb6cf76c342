"""A training that falls apart has what it keeps; a change has to hold as long; what is advised may begin slower."""

from __future__ import annotations

import importlib
import math
from typing import Any

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lightning_tricks as lt
from lightning_tricks.experiments.arms import ARMS
from lightning_tricks.experiments.arms import trials as trials_module
from lightning_tricks.experiments.arms.arm import Arm
from lightning_tricks.experiments.arms.prepared import prepared
from lightning_tricks.experiments.arms.trial import LEAST, Trial, simplest
from lightning_tricks.experiments.arms.trials import Trials
from lightning_tricks.experiments.training import Training
from lightning_tricks.experiments.training.deadline import Deadline

pytestmark = [pytest.mark.usefixtures("usual_trials"), pytest.mark.filterwarnings("ignore")]
changes_module = importlib.import_module("lightning_tricks.experiments.changes")
Y = torch.arange(768) % 6
X = 1.2 * torch.randn(6, 12, generator=torch.Generator().manual_seed(0))[Y]
X = X + torch.randn(768, 12, generator=torch.Generator().manual_seed(1))
APART = 45  # steps


def batches(y: Tensor = Y) -> list[tuple[Tensor, Tensor]]:
    order = torch.randperm(768, generator=torch.Generator().manual_seed(2))
    return [(X[some], y[some]) for some in order.split(32)]


@pytest.fixture(autouse=True)
def _shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials_module, "SORT", 20)
    monkeypatch.setattr(trials_module, "DECLARE", 60)
    torch.manual_seed(0)


class FallsApart(L.LightningModule):
    """Learns, until after some steps its rate jumps."""

    def __init__(self, apart: float = APART) -> None:
        super().__init__()
        self.apart = apart
        self.net = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 6))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.3)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step < self.apart else 1e4)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def drop_schedule(training: Any, setting: Any) -> None:
    training.schedules = []


def tried(*arms: Arm, advised: tuple[str, ...] = (), apart: float = APART) -> Trials:
    trials = prepared(Training.of(FallsApart(apart)), batches(), False, Deadline(60))
    trials.run(arms, (), always=True, advised=advised)
    return trials


def test_what_keeps_the_training_is_proven_and_what_falls_as_well_is_not() -> None:
    keeps = Arm("keeps", "undo", "mend_schedule", "", drop_schedule)
    falls = Arm("falls", "undo", "mend_schedule", "", lambda training, setting: training.scale_lr(1.5))
    trials = tried(keeps, falls)
    base = trials.base()
    assert base.held[40] > 0.5
    assert base.falls_apart(240)
    assert base.best(60, 240)[0] < 0.2
    kept, fallen = trials.trials
    assert (kept.proven, kept.reached) == (True, 240)
    assert kept.gain > 0.5
    assert not fallen.proven


def test_a_training_that_only_overfits_keeps_its_best() -> None:
    base = tried().base()
    steps = range(20, 260, 20)
    base.held = {step: 0.8 if step < 120 else 0.1 for step in steps}
    base.seen = dict.fromkeys(steps, 0.9)
    assert not base.falls_apart(240)
    assert base.best(20, 240) == (0.8, 0.9)
    base.seen = {step: 0.9 if step < 120 else 0.2 for step in steps}
    assert base.best(20, 240) == (0.1, 0.2)


@pytest.mark.parametrize("advised", [(), ("initialize",)])
def test_what_is_advised_is_not_dropped_at_the_first_look(advised: tuple[str, ...]) -> None:
    slow = Arm("slow", "rebuild", "initialize", "", lambda training, setting: training.scale_lr(1e-3))
    (trial,) = tried(slow, advised=advised, apart=math.inf).trials
    assert trial.dropped != bool(advised)


@pytest.mark.parametrize("advised", [(), ("raise_learning_rate",)])
def test_what_is_advised_gets_more_steps_where_nothing_else_is_proven(advised: tuple[str, ...]) -> None:
    """Three times as fast: in a quarter of the steps it comes less far than without, in three quarters farther."""

    def slow(training: Any, setting: Any) -> None:
        training.optimizer = torch.optim.SGD(training.module.parameters(), 0.01)

    trials = prepared(Training.of(FallsApart(math.inf)), batches(), False, Deadline(60))
    drop_schedule(trials.training, None)
    slow(trials.training, None)
    faster = Arm("faster", "undo", "raise_learning_rate", "", lambda training, setting: training.scale_lr(3.0))
    trials.run([faster], (), advised=advised)
    (trial,) = trials.trials
    assert trial.proven == bool(advised)
    if advised:
        assert (trial.reached, trials.base().steps, round(trial.times, 2)) == (180, 240, 1.33)
        assert trial.gain > 0.05
    else:
        assert trial.gain < 0


def test_half_of_the_best_gain_is_enough_for_an_undoing_that_a_warning_asks_for() -> None:
    undo = Trial(Arm("undo", "undo", "zero_grad", "", drop_schedule), gain=0.14, proven=True)
    rebuild = Trial(Arm("rebuild", "rebuild", "insert_batch_norm", "", drop_schedule), gain=0.2, proven=True)
    assert simplest([undo, rebuild], LEAST) is rebuild
    undo.advised = True
    assert simplest([undo, rebuild], LEAST) is undo
    undo.gain = 0.09
    assert simplest([undo, rebuild], LEAST) is rebuild


@pytest.mark.parametrize(("warms_up", "tried_arms"), [(True, []), (False, ["no_schedule"])])
def test_a_schedule_that_still_rises_is_not_blamed(warms_up: bool, tried_arms: list[str]) -> None:
    class Scheduled(FallsApart):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), 0.3)
            factor = (lambda step: 1e-4 * step) if warms_up else (lambda step: 1e-4)
            return [optimizer], [
                {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor), "interval": "step"}
            ]

    trials = prepared(Training.of(Scheduled()), batches(), False, Deadline(60))
    trials.run([arm for arm in ARMS if arm.name == "no_schedule"], ())
    assert [trial.arm.name for trial in trials.trials if trial.proven] == tried_arms
    again = prepared(Training.of(Scheduled()), batches(), False, Deadline(60))
    again.run([], ["raise_learning_rate"])
    assert bool(again.trials) != warms_up


@pytest.mark.parametrize(("advised", "asked", "tried_arms"), [((), False, 0), (("unfreeze",), False, 1), ((), True, 1)])
def test_what_is_frozen_is_meant_so_unless_a_warning_says_otherwise(
    advised: tuple[str, ...], asked: bool, tried_arms: int
) -> None:
    module = FallsApart(math.inf)
    module.net[0].requires_grad_(False)
    trials = prepared(Training.of(module), batches(), False, Deadline(60))
    drop_schedule(trials.training, None)
    trials.training.scale_lr(0.01)
    trials.run([arm for arm in ARMS if arm.name == "unfreeze"], (), advised=advised, always=asked)
    assert len(trials.trials) == tried_arms


@pytest.mark.parametrize("learns", [True, False])
def test_a_loss_that_stays_at_a_guess_is_not_called_healthy(learns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "SHORTEST", 20)
    y = Y if learns else Y[torch.randperm(768, generator=torch.Generator().manual_seed(3))]
    net = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 6))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    found = lt.checkup(net, batches(y), F.cross_entropy, optimizer, experiments=["free_outputs", "changes"])
    assert found.experiments[1].conclusive
    assert (found.state == "healthy") == learns
    if not learns:
        assert "the loss on held-back data stays at that of a guess" in found.verdict


@pytest.mark.parametrize("rate", [3e-3, 1e-5])
def test_a_finding_of_the_first_steps_is_information_where_the_training_learns_as_it_is(
    rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Targets that lie far off are reached all the same; at a low rate they are not."""
    monkeypatch.setattr(trials_module, "SORT", 60)

    class Scaled(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return 50.0 + 50.0 * super().forward(x)

    y = 50.0 + 9.0 * X[:, :1] / X[:, :1].std()
    net = Scaled(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 1))
    optimizer = torch.optim.Adam(net.parameters(), rate)
    data = [(X[i : i + 32], y[i : i + 32]) for i in range(0, 768, 32)]
    rules = lt.checkup(net, data, F.mse_loss, optimizer, experiments="none")
    (said,) = [finding for finding in rules.findings if finding.rank]
    assert said.problem == "output_mismatch"
    found = lt.checkup(net, data, F.mse_loss, optimizer, experiments=["free_outputs", "changes"])
    (same,) = [finding for finding in found.findings if finding.problem == "output_mismatch"]
    assert (same.severity == "info") == (rate == 3e-3)
    if rate == 3e-3:
        assert "Tried, it does no harm" in same.explanation
        assert found.healthy


@pytest.mark.parametrize("rate", [0.004, 0.3])
def test_what_comes_half_of_the_way_is_not_changed_and_still_asked_to_learn_by_heart(
    rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "WITHOUT_A_WARNING", 0.05)
    net = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 6))
    names = ["free_outputs", "changes", "memorise"]
    found = lt.checkup(net, batches(), F.cross_entropy, torch.optim.SGD(net.parameters(), rate), experiments=names)
    made = {each.name: each for each in found.experiments}
    assert made["changes"].answer.startswith("none of 0; ")
    assert ("memorise" in made) == (made["changes"].numbers["unchanged"] < 0.85) == (rate == 0.004)


@pytest.mark.parametrize("undone", [0.0, 1.0])
def test_what_learns_without_a_warning_is_only_asked_what_is_to_be_undone(
    undone: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a hundredth of the rate it comes a part of the way; ten times as much would bring it on."""
    monkeypatch.setattr(changes_module, "WITHOUT_A_WARNING", 1.0)
    monkeypatch.setattr(changes_module, "UNDONE", undone)
    net = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 6))
    optimizer = torch.optim.SGD(net.parameters(), 0.004)
    found = lt.checkup(net, batches(), F.cross_entropy, optimizer, experiments=["free_outputs", "changes"])
    (_, made) = found.experiments
    assert made.conclusive
    assert ("raise_learning_rate" in made.numbers) == (undone == 1.0)
