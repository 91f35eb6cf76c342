"""What is planted is found by the change that takes it away; what is healthy gains nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks.experiments.arms import ARMS
from lightning_tricks.experiments.arms import trials as trials_module
from lightning_tricks.experiments.arms.arm import Arm
from lightning_tricks.experiments.arms.kinds.rates import rate
from lightning_tricks.experiments.arms.prepared import prepared
from lightning_tricks.experiments.arms.training_run import LossUnit
from lightning_tricks.experiments.arms.trial import Trial, cause_of
from lightning_tricks.experiments.arms.trials import Trials
from lightning_tricks.experiments.training import Training
from lightning_tricks.experiments.training.deadline import Deadline
from lightning_tricks.experiments.training.plan import planned_steps

pytestmark = [pytest.mark.usefixtures("usual_trials"), pytest.mark.filterwarnings("ignore")]
GENERATOR = torch.Generator().manual_seed(0)
CENTRES = 1.2 * torch.randn(6, 12, generator=GENERATOR)
Y = torch.arange(768) % 6
X = CENTRES[Y] + torch.randn(768, 12, generator=GENERATOR)


@pytest.fixture(autouse=True)
def _shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials_module, "SORT", 20)
    monkeypatch.setattr(trials_module, "DECLARE", 60)


class Lit(L.LightningModule):
    def __init__(self, net: nn.Module, **changes: Any) -> None:
        super().__init__()
        self.net = net
        self.lr, self.decay, self.rate_now, self.held = 0.01, 0.0, None, None
        for name, value in changes.items():
            setattr(self, name, value)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        output = self.net(batch[0])
        return F.mse_loss(output, batch[1]) if batch[1].is_floating_point() else F.cross_entropy(output, batch[1])

    def configure_optimizers(self) -> Any:
        parameters = [p for n, p in self.named_parameters() if p.requires_grad and (not self.held or self.held in n)]
        optimizer = torch.optim.Adam(parameters, self.lr, weight_decay=self.decay)
        if self.rate_now is None:
            return optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate_now)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Accumulating(Lit):
    def optimizer_zero_grad(self, *args: Any) -> None:
        pass


class Clipping(Lit):
    def configure_gradient_clipping(self, optimizer: Any, *args: Any) -> None:
        for parameter in self.parameters():
            parameter.grad.mul_(0.0)


def mlp(*behind: nn.Module, activation: Callable[[], nn.Module] = nn.ReLU, outputs: int = 6) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 24), *behind, activation(), nn.Linear(24, 24), activation(), nn.Linear(24, outputs)
    )


def loader(x: Tensor = X, y: Tensor = Y, *, shuffle: bool = True) -> DataLoader[Any]:
    return DataLoader(TensorDataset(x, y), 32, shuffle=shuffle, generator=torch.Generator().manual_seed(0))


def evaluation(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_var.fill_(1e-6)
            module.eval()
    return net


def with_bias(net: nn.Module, value: float, layer: int = 0) -> nn.Module:
    nn.init.constant_(net[layer].bias, value)
    return net


def frozen(net: nn.Module) -> nn.Module:
    """But for one bias."""
    net.requires_grad_(False)
    net[4].bias.requires_grad_(True)
    return net


class WithFunction(nn.Module):
    """Calls the softmax in front of its loss as a function, behind others that belong there."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.gate, self.last = nn.Linear(12, 24), nn.Linear(24, 24), nn.Linear(24, 6)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.first(x))
        return self.last(24 * hidden * torch.softmax(self.gate(hidden), 1)).softmax(dim=-1)


def constant(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.05 if parameter.dim() > 1 else 0.0)
    return net


PLANTED: dict[str, tuple[Callable[[], Lit], Callable[[], Any]]] = {
    "no_clipping": (lambda: Clipping(mlp()), loader),
    "no_decay": (lambda: Lit(mlp(), decay=3.0), loader),
    "no_dropout": (lambda: Lit(mlp(nn.Dropout(0.99))), loader),
    "no_schedule": (lambda: Lit(mlp(), rate_now=1e-5), loader),
    "zero_grad": (lambda: Accumulating(mlp(), lr=0.05), loader),
    "train_mode": (lambda: Lit(evaluation(mlp(nn.BatchNorm1d(24)))), loader),
    "all_parameters": (lambda: Lit(mlp(), held="net.0.bias"), loader),
    "unfreeze": (lambda: Lit(frozen(mlp())), loader),
    "shuffle": (lambda: Lit(mlp(nn.BatchNorm1d(24))), lambda: loader(X[Y.argsort()], Y.sort().values, shuffle=False)),
    "standardize_input": (lambda: Lit(mlp(), lr=1e-3), lambda: loader(1e-3 * X + 1.0)),
    "standardize_targets": (lambda: Lit(mlp(outputs=1)), lambda: loader(X, X[:, :1] * 4 + 300.0)),
    "no_last_activation": (lambda: Lit(with_bias(mlp().append(nn.ReLU()), -10.0, 4)), loader),
    "no_last_function": (lambda: Lit(WithFunction()), loader),
    "reset_biases": (lambda: Lit(with_bias(mlp(), -30.0)), loader),
    "initialize": (lambda: Lit(constant(mlp())), loader),
}


def run(name: str, *arms: Arm) -> tuple[Trials, Trial]:
    make, data = PLANTED[name]
    trials = prepared(Training.of(make()), data(), False, Deadline(60))
    trials.run(arms, (), always=True)
    return trials, next(trial for trial in trials.trials if trial.arm.name == name)


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_undone(name: str) -> None:
    arm = next(arm for arm in ARMS if arm.name == name)
    _, trial = run(name, arm)
    assert not trial.reason
    assert trial.proven, f"{trial.base:.2f} -> {trial.share:.2f}"


def test_the_line_of_a_function_is_named() -> None:
    _, trial = run("no_last_function", next(arm for arm in ARMS if arm.name == "no_last_function"))
    assert trial.place is not None
    assert re.fullmatch(r"softmax in test_trials\.py:\d+", trial.place)
    lines = Path(__file__).read_text().splitlines()
    assert "softmax(dim=-1)" in lines[int(trial.place.rpartition(":")[2]) - 1]


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
