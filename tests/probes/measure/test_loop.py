"""The training loop is counted as it runs: passes, steps, rates, and whose tensors these are."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lightning_tricks.probes import Probe, TrainingRecord
from lightning_tricks.probes.measure.loop import Draw


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def training(probe: Probe) -> TrainingRecord:
    record = probe.snapshot().training
    assert record is not None
    return record


def test_passes_and_steps() -> None:
    network = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with Probe(network, optimizer) as probe:
        for _ in range(3):
            network(torch.ones(2, 3)).sum().backward()
        optimizer.step()
        with torch.no_grad():
            network(torch.ones(2, 3))
    record = training(probe)
    assert (record.optimizers, record.forwards, record.backwards, record.steps) == (1, 4, 3, 1)
    with Probe(network) as probe:
        pass
    assert training(probe) == TrainingRecord()


def test_rates_of_all_groups_are_those_before_the_step() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    groups = [{"params": network[0].parameters(), "lr": torch.tensor(0.5)}, {"params": network[1].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1)  # type: ignore[arg-type]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda step: 1.0, lambda step: step * 2.0])
    with Probe(network, optimizer) as probe:
        network(torch.ones(2, 3)).sum().backward()
        optimizer.step()
        schedule.step()
    snapshot = probe.snapshot()
    assert training(probe).rates == (0.5, 0.0)
    assert training(probe).first_rates[1] == pytest.approx(0.1)
    assert snapshot.learning_rate == training(probe).rate == 0.5
    assert [record.group for record in snapshot.parameters] == [0, 0, 1, 1]


def test_without_rates_none_is_known() -> None:
    assert math.isnan(TrainingRecord().rate)


def test_tensors_of_others() -> None:
    network, image, spare = nn.Linear(3, 1), torch.ones(2, 3, requires_grad=True), torch.ones(7, requires_grad=True)
    optimizer = torch.optim.SGD([image, spare, network.weight], lr=0.1)
    with Probe(network, optimizer) as probe:
        network(image).sum().backward()
        optimizer.step()
    record = training(probe)
    assert (record.held, record.foreign, record.foreign_with_gradient) == (1, 2, 1)
    assert (record.foreign_shapes, record.loose) == (((7,),), ())


class Hides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = {"a": [nn.Linear(8, 8)]}
        self.weight = [torch.randn(8, 8, requires_grad=True)]
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.parts["a"][0](x) @ self.weight[0])  # type: ignore[no-any-return]


def test_weights_that_no_module_has() -> None:
    model = nn.Sequential(Hides())
    given = torch.ones(2, 8, requires_grad=True)  # an input that wants a gradient is no weight
    with Probe(model, torch.optim.SGD(model.parameters(), lr=0.1)) as probe:
        model(given).sum().backward()
    loose = {weight.name: weight for weight in training(probe).loose}
    assert {name: (weight.module, weight.fresh) for name, weight in loose.items()} == {
        "0.parts['a'][0].weight": ("0", True),
        "0.weight[0]": ("0", False),
    }
    assert loose["0.weight[0]"].size == pytest.approx(model[0].weight[0].square().mean().sqrt().item())  # type: ignore


@pytest.mark.parametrize("kind", [lambda: nn.Linear(64, 32), lambda: nn.Conv2d(8, 16, 3), lambda: nn.Conv1d(32, 32, 2)])
def test_a_fresh_draw_is_known_and_nothing_else(kind: type[nn.Module]) -> None:
    def is_fresh(weight: Tensor) -> bool:
        draw = Draw.of("w", "", weight)
        return draw.is_fresh(draw.numbers)

    for seed in range(20):
        torch.manual_seed(seed)
        weight: Tensor = kind().weight.detach()  # type: ignore[operator, assignment]
        assert is_fresh(weight)
        assert is_fresh(weight.bfloat16())
        assert not is_fresh(weight * 1.1)
        assert not is_fresh(weight + 0.1 * weight.std() * torch.randn_like(weight))
        assert not is_fresh(torch.randn_like(weight) * weight.std())


def test_frozen_weights_in_front_of_trained_ones() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 8))
    side = nn.Linear(8, 8)
    model = nn.ModuleDict({"net": network, "side": side})
    for frozen in (network[0], side):
        frozen.requires_grad_(False)
    with Probe(model) as probe:
        (network(torch.randn(4, 8)) - side(torch.randn(4, 8))).sum().backward()
    assert training(probe).fresh == ("net.0.weight",)


def test_which_parameters_ran_and_which_a_loss_depends_on() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8))
    with Probe(network) as probe:
        network[0](torch.randn(4, 8)).detach()
        network[2](network[1](torch.randn(4, 8))).sum().backward()
    seen = {record.name: (record.ran, record.reached) for record in probe.snapshot().parameters}
    assert [seen[f"{index}.weight"] for index in range(4)] == [
        (True, False),
        (True, True),
        (True, True),
        (False, False),
    ]


def test_gradients_that_change_before_the_step() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with Probe(network) as probe:
        probe.trained_by([optimizer])
        network(torch.ones(2, 3)).sum().backward()
        probe.read_gradients(network.parameters())
        network[0].weight.grad.mul_(0.5)  # type: ignore[union-attr, operator]
        network[0].bias.grad = None
        optimizer.step()
        probe.read_updates()
    assert [record.altered for record in probe.snapshot().parameters] == [True, True, False, False]


def test_a_loss_that_needs_no_gradient() -> None:
    network = nn.Linear(3, 1)
    with Probe(network) as probe:
        probe.note_loss(network(torch.ones(2, 3)).sum().detach())
    assert (training(probe).detached, training(probe).backwards) == (1, 0)
    assert math.isfinite(probe.snapshot().loss)
