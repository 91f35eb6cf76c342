"""Trainings in which nothing is trained are named, with the line to change; those that only wait are not."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, StepLR

from lightning_tricks import checkup
from lightning_tricks.diagnosis import diagnose, find
from lightning_tricks.diagnosis.rules.no_update import find_no_update
from lightning_tricks.probes import Snapshot
from tests.diagnosis.custom import fit, look, said
from tests.diagnosis.trainings import deep, digits

CRITICAL = [("critical", None)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def action(history: list[Snapshot]) -> str:
    (found,) = find_no_update(history)
    return found.remedies[0].action


def at_rate(rate: float, kind: type[torch.optim.Optimizer] = torch.optim.Adam) -> list[Snapshot]:
    network = deep(nn.ReLU, 2)
    return fit(network, optimizer=kind(network.parameters(), lr=rate), steps=60)  # type: ignore[call-arg]


def scheduled(
    make: Callable[[torch.optim.Optimizer], LRScheduler], steps: int = 100, network: nn.Module | None = None
) -> list[Snapshot]:
    network = network or deep(nn.ReLU, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    schedule = make(optimizer)

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
        schedule.step()

    return look(network, take_step, [optimizer], steps=steps)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
@pytest.mark.parametrize("rate", [0.0, 1e-12, 1e-9])
def test_rates_at_which_no_weight_changes(rate: float, kind: type[torch.optim.Optimizer]) -> None:
    history = at_rate(rate, kind)
    assert said(find_no_update(history)) == CRITICAL
    assert action(history) == "set_lr"
    assert diagnose(history).findings[0].problem == "no_update"
    stored = [Snapshot.from_dict(snapshot.to_dict()) for snapshot in history]
    assert find_no_update(stored) == find_no_update(history)


@pytest.mark.parametrize("rate", [0.0, 1e-9])
def test_in_a_checkup(rate: float) -> None:
    network, (x, y) = deep(nn.ReLU, 2), digits()
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    found = checkup(network, (x[:64], y[:64]), F.cross_entropy, optimizer).findings[0]
    assert (found.problem, found.severity) == ("no_update", "critical")


def test_small_rates_that_train_are_no_fault() -> None:
    assert find_no_update(at_rate(1e-6)) == []


@pytest.mark.parametrize("history", ["old", "empty"])
def test_histories_without_the_record_say_nothing(history: str) -> None:
    old = [Snapshot.from_dict({**s.to_dict(), "training": None}) for s in at_rate(0.0)] if history == "old" else []
    assert find_no_update(old) == []


def test_a_schedule_at_zero() -> None:
    history = scheduled(lambda optimizer: StepLR(optimizer, 20, gamma=0.0))
    assert said(find_no_update(history)) == CRITICAL
    assert action(history) == "mend_schedule"
    assert find_no_update(history)[0].evidence["learning rate before"] == 0.01
    never = find_no_update(scheduled(lambda optimizer: LambdaLR(optimizer, lambda step: 0.0)))
    assert said(never) == CRITICAL
    assert "let the schedule leave 0" in never[0].remedies[0].text


def test_a_schedule_that_has_not_begun_in_a_few_steps() -> None:
    history = scheduled(lambda optimizer: LambdaLR(optimizer, lambda step: 0.0), steps=9)
    assert said(find_no_update(history)) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: LambdaLR(optimizer, lambda step: min(step / 50, 1.0)),
        lambda optimizer: LambdaLR(optimizer, lambda step: max(1.0 - step / 95, 0.0)),
        lambda optimizer: CosineAnnealingLR(optimizer, 100),
    ],
    ids=["warm-up from 0", "linear to 0", "cosine to 0"],
)
def test_schedules_that_pass_by_zero(make: Callable[[torch.optim.Optimizer], LRScheduler]) -> None:
    history = scheduled(make)
    for steps in range(1, len(history) + 1):
        assert find_no_update(history[:steps]) == []


def test_a_schedule_that_ends_early_after_all_is_learned() -> None:
    network = deep(nn.ReLU, 2)
    fit(network, steps=150)
    assert find_no_update(scheduled(lambda optimizer: StepLR(optimizer, 20, gamma=0.0), network=network)) == []


class WithoutGradient(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = deep(nn.ReLU, 2)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("network", "loss", "layer", "todo"),
    [
        (lambda: deep(nn.ReLU, 2), lambda y, t: F.cross_entropy(y, t).detach(), None, "keep_graph"),
        (WithoutGradient, F.cross_entropy, "net.0", "keep_graph"),
        (lambda: deep(nn.ReLU, 2).requires_grad_(False), F.cross_entropy, None, "unfreeze"),
    ],
    ids=["detached loss", "forward under no_grad", "everything frozen"],
)
def test_a_checkup_of_what_cannot_go_backward(
    network: Callable[[], nn.Module], loss: Callable[[Tensor, Tensor], Tensor], layer: str | None, todo: str
) -> None:
    x, y = digits()
    diagnosis = checkup(network(), (x[:64], y[:64]), loss)
    found = diagnosis.findings[0]
    assert (found.problem, found.severity, found.layer) == ("no_update", "critical", layer)
    assert found.remedies[0].action == todo
    assert len([each for each in diagnosis.findings if each.rank]) == 1
    assert "no_grad" in found.remedies[0].text or layer is None


@pytest.mark.parametrize(("backward", "step", "todo"), [(False, True, "call_backward"), (True, False, "call_step")])
def test_a_loop_without_a_part(backward: bool, step: bool, todo: str) -> None:
    network = deep(nn.ReLU, 2)
    optimizer = torch.optim.Adam(network.parameters())

    def take_step(x: Tensor, y: Tensor, _: int) -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x), y)
        if backward:
            loss.backward()
        if step:
            optimizer.step()

    history = look(network, take_step, [optimizer], steps=80)
    assert said(find_no_update(history)) == CRITICAL
    assert action(history) == todo
    assert diagnose(history).findings[0].problem == "no_update"


def test_another_model_runs() -> None:
    network = deep(nn.ReLU, 2)
    other, optimizer = copy.deepcopy(network), torch.optim.Adam(network.parameters())
    history = look(network, lambda x, y, _: (other(x), optimizer.step())[1], [optimizer], steps=10)
    assert said(find_no_update(history)) == CRITICAL
    assert action(history) == "call_model"


@pytest.mark.parametrize("window", [4, 40])
def test_accumulation_by_hand(window: int) -> None:
    network = deep(nn.ReLU, 2)
    optimizer = torch.optim.Adam(network.parameters())

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        F.cross_entropy(network(x), y).backward()
        if step % window == window - 1:
            optimizer.step()
            optimizer.zero_grad()

    history = look(network, take_step, [optimizer], steps=100)
    for steps in range(1, len(history) + 1):
        assert said(find_no_update(history[:steps])) == []


def test_steps_before_the_first_batch_that_trains() -> None:
    """As where a memory of plays is filled first."""
    network = deep(nn.ReLU, 2)
    optimizer = torch.optim.Adam(network.parameters())

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        if step < 20:
            with torch.no_grad():
                network(x)
        else:
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()

    history = look(network, take_step, [optimizer], steps=60)
    for steps in range(1, len(history) + 1):
        assert find_no_update(history[:steps]) == []


class ByImages(nn.Module):
    """Convolutions with norms, which lie between the weights as linear operations do."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (1, 8, 8, 8):
            layers += [nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Sigmoid()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.view(-1, 1, 8, 8)).mean((2, 3)))  # type: ignore[no-any-return]


def frozen_but_the_last(network: nn.Module, rate: float, steps: int = 130) -> list[Snapshot]:
    *body, head = network.children()
    for part in body:
        part.requires_grad_(False)
    optimizer = torch.optim.SGD(head.parameters(), lr=rate)
    return fit(network, optimizer=optimizer, steps=steps, batch=16, every=100)


@pytest.mark.parametrize(
    ("make", "rate", "layer"), [(lambda: deep(nn.Sigmoid, 6, width=16), 1e-3, "0"), (ByImages, 1e-5, "body.0")]
)
def test_fresh_layers_that_are_frozen(make: Callable[[], nn.Module], rate: float, layer: str) -> None:
    history = frozen_but_the_last(make(), rate, 1101)
    assert said(find_no_update(history)) == [("warning", layer)]
    assert said(find_no_update(history[:-2])) == []


def test_a_frozen_network_whose_input_is_trained() -> None:
    network, image = deep(nn.ReLU, 2).requires_grad_(False), nn.Parameter(torch.randn(64))
    network.register_forward_pre_hook(lambda _, given: (given[0] + image,))
    assert find_no_update(fit(network, optimizer=torch.optim.Adam([image]), steps=10)) == []


def test_random_features_and_pretrained_ones() -> None:
    assert find_no_update(frozen_but_the_last(deep(nn.ReLU, 2), 0.1)) == []
    trained = deep(nn.Sigmoid, 2)
    fit(trained, steps=30)
    history = frozen_but_the_last(nn.Sequential(*trained[:-1], nn.Linear(64, 10)), 1e-5)
    assert find_no_update(history) == []
    assert history[-1].loss > 2.2


def test_targets_that_are_random_or_copies() -> None:
    random, student = deep(nn.ReLU, 2), deep(nn.ReLU, 2)
    model = nn.ModuleDict({"target": random.requires_grad_(False), "student": student})
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-6)

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        optimizer.zero_grad()
        F.mse_loss(model["student"](x), model["target"](x)).backward()
        optimizer.step()

    assert said(find_no_update(look(model, take_step, [optimizer], steps=130))) == []


class Skips(torch.optim.SGD):
    """Steps the first two tensors only."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"][:2]:
            parameter.data.add_(parameter.grad, alpha=-0.05)


def test_weights_that_a_step_leaves_out() -> None:
    network = deep(nn.ReLU, 2)
    history = fit(network, optimizer=Skips(network.parameters(), lr=0.05), steps=60)
    assert said(find_no_update(history)) == [("warning", "2")]
    assert find_no_update(history[:4]) == []


def test_weights_that_stay_for_a_reason() -> None:
    network = deep(nn.ReLU, 2, norm=nn.BatchNorm1d)  # its biases before the norm have gradients near zero
    assert find_no_update(fit(network, optimizer=torch.optim.SGD(network.parameters(), lr=0.05), steps=60)) == []
    held = deep(nn.ReLU, 2)
    groups = [{"params": held[:2].parameters(), "lr": 0.0}, {"params": held[2:].parameters()}]
    assert find_no_update(fit(held, optimizer=torch.optim.SGD(groups, lr=0.05), steps=60)) == []


def test_what_follows_from_it_is_folded() -> None:
    network = deep(nn.Sigmoid, 5)
    history = fit(network, optimizer=torch.optim.SGD(network.parameters(), lr=0.0), steps=60)
    assert [finding.problem for finding in find(history) if finding.rank] == ["no_update"]
