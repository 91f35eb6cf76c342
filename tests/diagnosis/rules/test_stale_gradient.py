"""Gradients that nobody clears are named; those that are cleared before their own step, at whatever time, are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lightning_tricks as lt
from lightning_tricks.diagnosis import diagnose
from lightning_tricks.diagnosis.rules.stale_gradient import find_stale_gradient
from lightning_tricks.probes import Snapshot
from tests.callbacks.trainings import Classifier, batches, fit
from tests.diagnosis.custom import look, said
from tests.diagnosis.trainings import deep, digits

CRITICAL = [("critical", None)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def nothing(optimizer: torch.optim.Optimizer) -> None:
    pass


def data_by_hand(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.data.zero_()  # torch does not count that as a change


CLEAR: dict[str, Callable[[torch.optim.Optimizer], None]] = {
    "none": lambda optimizer: optimizer.zero_grad(),
    "zero": lambda optimizer: optimizer.zero_grad(set_to_none=False),
    "data": data_by_hand,
}


def loop(clear: Callable[[torch.optim.Optimizer], None], *, clip: bool = False, window: int = 1) -> list[Snapshot]:
    network = deep(nn.ReLU, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        if step % window == 0:
            clear(optimizer)
        F.cross_entropy(network(x), y).backward()
        if step % window == window - 1:
            if clip:
                nn.utils.clip_grad_norm_(network.parameters(), 0.1)
            optimizer.step()

    return look(network, take_step, [optimizer], steps=30)


@pytest.mark.parametrize("clip", [False, True])
def test_zero_grad_forgotten(clip: bool) -> None:
    history = loop(nothing, clip=clip)
    assert said(find_stale_gradient(history)) == CRITICAL
    assert find_stale_gradient(history)[0].evidence["parameters stepped with an old gradient"] == 6
    assert [said(find_stale_gradient(history[:looks])) for looks in (1, 2, 3)] == [[], [], CRITICAL]
    assert diagnose(history).findings[0].problem == "stale_gradient"
    stored = [Snapshot.from_dict(snapshot.to_dict()) for snapshot in history]
    assert find_stale_gradient(stored) == find_stale_gradient(history)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("clear", CLEAR)
def test_cleared_gradients_and_windows(clear: str, window: int) -> None:
    assert find_stale_gradient(loop(CLEAR[clear], window=window)) == []


@pytest.mark.parametrize("clear", CLEAR)
def test_a_generator_leaves_gradients_in_the_discriminator(clear: str) -> None:
    g, d = deep(nn.ReLU, 1, width=64)[:2], nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    model = nn.ModuleDict({"g": g, "d": d})
    of_d, of_g = torch.optim.Adam(d.parameters(), lr=1e-3), torch.optim.Adam(g.parameters(), lr=1e-3)

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        made = g(torch.randn(len(x), 64))
        CLEAR[clear](of_d)
        (-d(x).mean()).backward()
        d(made.detach()).mean().backward()
        of_d.step()
        CLEAR[clear](of_g)
        (-d(made)).mean().backward()
        of_g.step()

    history = look(model, take_step, [of_d, of_g], steps=30)
    assert find_stale_gradient(history) == []
    assert not any(snapshot.training.stale for snapshot in history if snapshot.training)


def test_of_two_optimisers_one_is_forgotten() -> None:
    network = deep(nn.ReLU, 2)
    one, other = (torch.optim.SGD(part.parameters(), lr=1e-3) for part in (network[:2], network[2:]))

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        one.zero_grad()
        F.cross_entropy(network(x), y).backward()
        one.step()
        other.step()

    (found,) = find_stale_gradient(look(network, take_step, [one, other], steps=10))
    assert (found.evidence["parameters stepped with an old gradient"], found.evidence["with a new one"]) == (4, 2)


def test_two_optimisers_that_step_one_after_the_other_with_one_gradient() -> None:
    network = deep(nn.ReLU, 2)
    one, other = (torch.optim.SGD(network.parameters(), lr=rate) for rate in (1e-3, 1e-4))

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        one.zero_grad()
        F.cross_entropy(network(x), y).backward()
        one.step()
        other.step()

    assert find_stale_gradient(look(network, take_step, [one, other], steps=10)) == []


def test_blocks_of_a_plain_loop() -> None:
    network, (x, y) = deep(nn.ReLU, 2), digits()
    for forgotten in (False, True):
        optimizer, history = torch.optim.Adam(network.parameters()), []
        for _ in range(4):
            with lt.probe(network, optimizer) as probe:
                F.cross_entropy(network(x[:64]), y[:64]).backward()
                optimizer.step()
                if not forgotten:
                    optimizer.zero_grad()
            history.append(probe.snapshot())
        assert bool(said(find_stale_gradient(history))) is forgotten
        optimizer.zero_grad()


class ByHand(Classifier):
    def __init__(self, forgotten: bool) -> None:
        super().__init__()
        self.automatic_optimization, self.forgotten = False, forgotten

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        optimizer = self.optimizers()
        if not self.forgotten:
            optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Lightning clears the gradients before a validation."""
        self.loss(batch)


@pytest.mark.parametrize("forgotten", [False, True])
def test_manual_optimisation(forgotten: bool) -> None:
    wanted = ["stale_gradient"] if forgotten else []
    doctor = lt.TrainingDoctor(report=False, on_problem="log")
    fit(ByHand(forgotten), [doctor], batches(7), validation=batches(1), max_epochs=3)
    assert [f.problem for f in doctor.diagnosis.findings if f.problem == "stale_gradient"] == wanted
    found = lt.checkup(ByHand(forgotten), batches(7)).findings
    assert [f.problem for f in found if f.problem == "stale_gradient"] == wanted


class NeverCleared(Classifier):
    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        pass


@pytest.mark.parametrize(
    ("make", "options", "wanted"),
    [
        (NeverCleared, {}, True),
        (NeverCleared, {"gradient_clip_val": 0.1}, True),
        (Classifier, {"gradient_clip_val": 0.1}, False),
        (Classifier, {"accumulate_grad_batches": 3}, False),
    ],
)
def test_automatic_optimisation(make: type[Classifier], options: dict[str, float], wanted: bool) -> None:
    doctor = lt.TrainingDoctor(report=False, on_problem="log", every_n_steps=1)
    fit(make(), [doctor], batches(9), **options)
    assert any(f.problem == "stale_gradient" for f in doctor.diagnosis.findings) is wanted
