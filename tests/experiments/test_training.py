"""A training on copies does what the user's own would do, and nothing of the user's moves."""

from __future__ import annotations

import copy
import random
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training import Training

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
BATCHES = [(X[i : i + 16], X[i : i + 16].sum(1, keepdim=True)) for i in range(0, 64, 16)]


class Lit(L.LightningModule):
    """Logs, asks its Trainer, clips by hand, has a schedule, draws random numbers."""

    def __init__(self, **configure: Any) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.mse_loss(self(x), y)
        self.log("loss", loss, prog_bar=True)
        self.log("lr", self.optimizers().param_groups[0]["lr"])
        self.logger.experiment.add_scalar("step", self.trainer.global_step)
        self.seen.append(loss.detach())
        return loss

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=0.5, gradient_clip_algorithm="norm")

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), 0.01)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + 10 * step / steps))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class InTheMiddle(L.Callback):
    """Makes a copy of the training after some batches, and goes on with it."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.training: Training | None = None
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx == self.after:
            with torch.random.fork_rng(devices=[]):
                self.training = Training.of(pl_module)
                self.losses = [self.training.copy().step(each) for each in (batch,)]
                self.losses += [self.training.step(each) for each in BATCHES[self.after :]]


def fit(module: L.LightningModule, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    loader = DataLoader(TensorDataset(X, X.sum(1, keepdim=True)), 16, generator=torch.Generator())
    trainer = L.Trainer(
        **{"max_epochs": 1, "accelerator": "cpu", "logger": DummyLogger(), "enable_checkpointing": False, **options},
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module, loader)
    return trainer


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.filterwarnings("ignore")
def test_a_copy_goes_the_way_of_the_trainer() -> None:
    torch.manual_seed(0)
    mine = Lit()
    theirs = copy.deepcopy(mine)
    torch.manual_seed(0)
    fit(theirs)
    torch.manual_seed(0)
    training = Training.of(mine, planned_steps=len(BATCHES))
    losses = [training.step(batch) for batch in BATCHES]
    assert losses == [float(loss) for loss in theirs.seen]
    assert same(state_of(training.module), state_of(theirs))
    assert not mine.seen


@pytest.mark.filterwarnings("ignore")
def test_settings_of_a_trainer_count() -> None:
    class Plain(Lit):
        def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
            L.LightningModule.configure_gradient_clipping(self, *args, **kwargs)

    torch.manual_seed(0)
    start, theirs = Plain(), Plain()
    theirs.load_state_dict(start.state_dict())
    torch.manual_seed(0)
    trainer = fit(theirs, gradient_clip_val=0.01, accumulate_grad_batches=2)
    start.trainer = trainer
    torch.manual_seed(0)
    training = Training.of(start, planned_steps=2)
    training.planned_steps = 2
    for batch in BATCHES:
        training.step(batch)
    assert training.clip == (0.01, "norm")
    assert training.accumulate == 2
    assert all(
        torch.allclose(p, q, atol=1e-7) for p, q in zip(training.module.parameters(), theirs.parameters(), strict=False)
    )


@pytest.mark.filterwarnings("ignore")
def test_in_the_middle_of_a_fit() -> None:
    torch.manual_seed(0)
    one = Lit()
    other = copy.deepcopy(one)
    watcher = InTheMiddle(after=2)
    torch.manual_seed(0)
    fit(one, watcher)
    torch.manual_seed(0)
    fit(other)
    assert same(state_of(one), state_of(other))  # the copy left no trace
    assert [float(x) for x in one.seen] == [float(x) for x in other.seen]
    assert watcher.training is not None
    assert watcher.training.optimizer.state_dict()["state"][0]["step"] == 4  # went on from the state of the fit
    assert watcher.losses[0] == pytest.approx(float(one.seen[2]), rel=0.5)
    assert watcher.training.schedules[0].scheduler.last_epoch == 4


def test_an_optimizer_built_in_init_is_copied_along() -> None:
    class Built(Lit):
        def __init__(self) -> None:
            super().__init__()
            self.adam = torch.optim.Adam(self.parameters(), 0.01)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.mse_loss(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return self.adam

    model = Built()
    before = state_of(model)
    training = Training.of(model)
    training.step(BATCHES[0])
    assert training.optimizer is not model.adam
    assert same(before, state_of(model))
    assert not model.adam.state
    assert not same(before, state_of(training.module))


def test_an_optimizer_of_the_original_is_made_that_of_the_copy() -> None:
    net = nn.Linear(6, 1)

    class Closed(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any) -> Tensor:
            return F.mse_loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(net.parameters(), 0.1)

    before = state_of(net)
    training = Training.of(Closed())
    losses = [training.step(BATCHES[0]) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    assert same(before, state_of(net))


def test_a_plain_module_trains_and_nothing_of_the_users_moves() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    F.mse_loss(net(X), X.sum(1, keepdim=True)).backward()
    gradients = [p.grad for p in net.parameters()]
    before, values = state_of(net), [g.clone() for g in gradients]
    batch = BATCHES[0][0].clone(), BATCHES[0][1].clone()

    def loss_fn(output: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(output, y.mul_(2.0))  # in place, on the batch

    training = Training.of(net, loss_fn, optimizer)
    losses = [training.step(batch) for _ in range(50)]
    assert losses[-1] < 0.2 * losses[0]
    assert same(before, state_of(net))
    assert not optimizer.state
    assert all(p.grad is g and torch.equal(g, v) for p, g, v in zip(net.parameters(), gradients, values, strict=False))
    assert torch.equal(batch[1], BATCHES[0][1])


def test_evaluation_leaves_the_training_as_it_is_and_repeats() -> None:
    torch.manual_seed(0)
    training = Training.of(Lit())
    streams = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    before = state_of(training.module)
    assert training.evaluate(BATCHES) == training.evaluate(BATCHES)
    assert same(before, state_of(training.module))
    assert training.module.net.training
    assert torch.equal(streams[0], torch.get_rng_state())
    assert streams[1] == random.getstate()
    assert np.array_equal(streams[2], np.random.get_state()[1])


def test_a_loss_that_differentiates_is_evaluated_too() -> None:
    net = nn.Linear(6, 1)

    def penalised(output: Tensor, y: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(output.sum(), net_of(training), create_graph=True)
        return F.mse_loss(output, y) + gradient.square().mean()

    def net_of(training: Training) -> nn.Parameter:
        return training.module.weight

    training = Training.of(net, penalised)
    assert training.evaluate(BATCHES) > 0
    training.step(BATCHES[0])


def test_copies_go_apart() -> None:
    training = Training.of(nn.Linear(6, 1), F.mse_loss)
    training.step(BATCHES[0])
    one, other = training.copy(), training.copy()
    one.step(BATCHES[1])
    assert same(state_of(other.module), state_of(training.module))
    assert not same(state_of(one.module), state_of(other.module))
    assert one.step(BATCHES[2]) != pytest.approx(other.step(BATCHES[2]), rel=1e-6)
    assert {id(p) for g in other.optimizer.param_groups for p in g["params"]} == set(map(id, other.module.parameters()))


def kept_graph(model: Any) -> None:
    model.last = model.net(X)


def generator(model: Any) -> None:
    model.stream = torch.Generator().manual_seed(3)


def old_weight_norm(model: Any) -> None:
    model.net[0] = torch.nn.utils.weight_norm(model.net[0])
    model.net(X)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", [kept_graph, generator, old_weight_norm])
def test_what_modules_hold_is_copied(change: Any) -> None:
    model = Lit()
    change(model)
    training = Training.of(model).copy()
    losses = [training.step(BATCHES[0]) for _ in range(10)]
    assert losses[-1] < losses[0]


class ByHand(Lit):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Two(Lit):
    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(self.net[0].parameters()), torch.optim.Adam(self.net[4].parameters())]


class AsksMuch(Lit):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.trainer.strategy.reduce(super().training_step(batch, batch_idx))


def hooked() -> nn.Module:
    model = Lit()
    model.net.register_forward_pre_hook(lambda module, args: (args[0] / 10,))
    return model


@pytest.mark.parametrize(
    ("make", "says"),
    [(ByHand, "by hand"), (Two, "2 optimisers"), (AsksMuch, "strategy"), (hooked, "hook")],
    ids=["by hand", "two optimisers", "asks the Trainer", "hook"],
)
def test_what_cannot_be_copied_is_refused_with_the_reason(make: Any, says: str) -> None:
    with pytest.raises(NotAskedError, match=says):
        Training.of(make()).step(BATCHES[0])


def test_a_loss_over_the_original_is_refused_before_anything_moves() -> None:
    net = nn.Sequential(nn.Linear(6, 1), nn.BatchNorm1d(1))
    before = state_of(net)

    def runs(output: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(net(y.expand(-1, 6)), y)

    def reads(output: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(output, y) + sum(p.square().sum() for p in net.parameters())

    for loss_fn, says in ((runs, "runs the Sequential of the original"), (reads, "parameters of the original")):
        with pytest.raises(NotAskedError, match=says):
            Training.of(net, loss_fn).step(BATCHES[0])
        with pytest.raises(NotAskedError, match=says):
            Training.of(net, loss_fn).evaluate(BATCHES)
    assert same(before, state_of(net))
    assert all(p.grad is None for p in net.parameters())


def test_hooks_that_are_methods_of_the_network_go_along() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(6, 1)
            self.calls = 0
            self.net.register_forward_pre_hook(self.centre)

        def centre(self, module: nn.Module, args: Any) -> Any:
            self.calls += 1
            return (args[0] - 1,)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    model = Centred()
    training = Training.of(model, F.mse_loss)
    training.step(BATCHES[0])
    assert (model.calls, training.module.calls) == (0, 1)
