"""Cut graphs and forgotten parameters are named by their first layer; whatever is not meant to be trained is not."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.diagnosis import Finding, find
from lightning_tricks.diagnosis.rules.disconnected_parameters import find_disconnected_parameters
from lightning_tricks.probes import Snapshot
from tests.diagnosis.custom import fit, look, said
from tests.diagnosis.trainings import deep


def adam(*modules: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([parameter for module in modules for parameter in module.parameters()], lr=1e-3)


class Cut(nn.Module):
    """Linear layers 0, 2, 4, 6; behind the second hidden layer something is done to the tensor."""

    def __init__(self, cut: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.cut = deep(nn.ReLU, 3), cut

    def forward(self, x: Tensor) -> Tensor:
        return self.net[4:](self.cut(self.net[:4](x)))


CUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "detach": lambda x: x.detach(),
    "data": lambda x: x.data,
    "numpy": lambda x: torch.from_numpy(x.detach().numpy()),
    "a new tensor": lambda x: torch.tensor(x.tolist()),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_is_named_by_its_place(name: str) -> None:
    network = Cut(CUTS[name])
    before = copy.deepcopy(network.net.state_dict())
    history = fit(network, steps=10)
    (found,) = find_disconnected_parameters(history)
    assert (found.severity, found.layer, found.step) == ("critical", "net.0", 0)
    assert found.evidence["layers cut off"] == "net.0, net.2"
    assert found.evidence["the cut lies between"] == "net.2 and net.4"
    assert found.evidence["parameters without a gradient"] == 4
    moved = {name[0] for name, value in network.net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"4", "6"}
    stored = [Snapshot.from_dict(snapshot.to_dict()) for snapshot in history]
    assert find_disconnected_parameters(stored) == [found]
    assert find(history)[0].problem == "disconnected_parameters"
    assert said(find_disconnected_parameters(history[:1])) == []  # it might take turns
    assert said(find_disconnected_parameters(history[:2])) == [("critical", "net.0")]


def test_a_loss_that_is_made_a_leaf_cuts_everything_off_at_once() -> None:
    network = deep(nn.ReLU, 2)
    history = fit(network, lambda output, y: F.cross_entropy(output, y).detach().requires_grad_(), steps=3)
    (found,) = find_disconnected_parameters(history[:1])
    assert (found.severity, found.layer) == ("critical", "0")
    assert found.evidence["the cut lies between"] == "4 and the loss"


def test_gradients_erased_before_the_step() -> None:
    network = deep(nn.ReLU, 2)
    optimizer = adam(network)

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        F.cross_entropy(network(x), y).backward()
        optimizer.zero_grad()
        optimizer.step()

    (found,) = find_disconnected_parameters(look(network, take_step, [optimizer], steps=3))
    assert (found.severity, found.layer) == ("critical", None)
    assert found.remedies[0].action == "reorder_zero_grad"


def test_a_detached_branch_of_a_residual_network() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(64, 64), nn.Linear(64, 10)
            self.branches = nn.ModuleList(deep(nn.ReLU, 1, width=64)[:2] for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for index, branch in enumerate(self.branches):
                x = x + (branch(x).detach() if index == 1 else branch(x))
            return self.head(x)

    history = fit(Residual(), steps=10)
    assert said(find_disconnected_parameters(history)) == [("warning", "branches.1.0")]
    assert said(find_disconnected_parameters(history[:2])) == []


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.norm, self.head = nn.LSTM(8, 32, batch_first=True), nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.rnn(x.view(-1, 8, 8))[0][:, -1]).detach())


def test_a_recurrent_layer_counts_with_all_its_parameters() -> None:
    (found,) = find_disconnected_parameters(fit(Sequence(), steps=10))
    assert (found.severity, found.layer) == ("critical", "rnn")
    assert found.evidence["number of layers"] == 1
    assert found.evidence["parameters without a gradient"] == 6


@pytest.mark.parametrize("forgotten", [0, 2, 6])
def test_a_layer_that_no_optimiser_holds(forgotten: int) -> None:
    network = deep(nn.ReLU, 3)
    held = [layer for index, layer in enumerate(network) if index != forgotten]
    history = fit(network, optimizer=adam(*held), steps=10)
    (found,) = find_disconnected_parameters(history)
    assert (found.severity, found.layer) == ("warning", str(forgotten))
    assert "share of the layers 0.25, threshold 0.5" in found.why()
    assert said(find_disconnected_parameters(history[:1])) == [("warning", str(forgotten))]


def test_a_network_whose_last_layer_alone_is_trained_is_information() -> None:
    network = deep(nn.ReLU, 3)
    (found,) = find_disconnected_parameters(fit(network, optimizer=adam(network[-1]), steps=10))
    assert (found.severity, found.layer) == ("info", "0")
    assert found.evidence["layers in no optimiser"] == "0, 2, 4"


class Spare(nn.Module):
    """Has a layer that forward does not use, or whose output it does not use."""

    def __init__(self, run: bool) -> None:
        super().__init__()
        self.net, self.spare, self.run = deep(nn.ReLU, 2), nn.Sequential(nn.Linear(10, 4), nn.LayerNorm(4)), run

    def forward(self, x: Tensor) -> Tensor:
        y = self.net(x)
        if self.run:
            self.spare(y)
        return y


@pytest.mark.parametrize("run", [False, True])
def test_a_layer_that_is_not_used(run: bool) -> None:
    history = fit(Spare(run), steps=10)
    assert said(find_disconnected_parameters(history)) == [("warning", "spare.0")]
    assert said(find_disconnected_parameters(history[:2])) == []


def only(findings: list[Finding]) -> Finding:
    (found,) = findings
    return found


def test_features_computed_without_gradients_that_an_optimiser_holds() -> None:
    network = deep(nn.ReLU, 3)
    optimizer = adam(network)

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        with torch.no_grad():
            features = network[:-1](x)
        optimizer.zero_grad()
        F.cross_entropy(network[-1](features), y).backward()
        optimizer.step()

    history = look(network, take_step, [optimizer], steps=10)
    found = only(find_disconnected_parameters(history))
    assert (found.severity, found.layer, found.evidence["number of layers"]) == ("warning", "0", 3)
    assert said(find_disconnected_parameters(history[:2])) == []


def test_frozen_layers_and_mask_tokens() -> None:
    network = deep(nn.ReLU, 2)
    network[0].requires_grad_(False)
    assert find_disconnected_parameters(fit(network, steps=10)) == []
    token = deep(nn.ReLU, 2)
    token.mask_token = nn.Parameter(torch.zeros(64))
    token.forward = lambda x: nn.Sequential(*token[:])(x)  # type: ignore[method-assign]
    found = only(find_disconnected_parameters(fit(token, steps=10)))
    assert (found.severity, found.evidence["parameters without a gradient"]) == ("info", "mask_token")


@pytest.mark.parametrize("held", [False, True])
def test_a_moving_average_of_the_network_is_not_trained(held: bool) -> None:
    model = nn.ModuleDict({"student": deep(nn.ReLU, 2), "teacher": deep(nn.ReLU, 2)})
    student, teacher = model["student"], model["teacher"]
    optimizer = adam(model if held else student)

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        with torch.no_grad():
            target = teacher(x)
        optimizer.zero_grad()
        (F.cross_entropy(student(x), y) + F.mse_loss(student(x), target)).backward()
        optimizer.step()
        with torch.no_grad():
            for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
                mine.lerp_(theirs, 0.1)

    assert find_disconnected_parameters(look(model, take_step, [optimizer], steps=30)) == []


@pytest.mark.parametrize("critic_steps", [1, 5])
def test_adversaries_take_turns(critic_steps: int) -> None:
    g, d = deep(nn.ReLU, 1, width=64)[:2], nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    model, optimizers = nn.ModuleDict({"g": g, "d": d}), [adam(g), adam(d)]

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        made = g(torch.randn(len(x), 64))
        optimizers[1].zero_grad()
        (d(made.detach()).mean() - d(x).mean()).backward()
        optimizers[1].step()
        if step % critic_steps == critic_steps - 1:
            optimizers[0].zero_grad()
            (-d(g(torch.randn(len(x), 64)))).mean().backward()
            optimizers[0].step()

    history = look(model, take_step, optimizers, steps=30)
    for steps in range(1, len(history) + 1):
        assert find_disconnected_parameters(history[:steps]) == []


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.a, self.b = deep(nn.ReLU, 2)[:-1], nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        return self.a(x), self.b(x)


def test_tasks_that_take_turns_under_one_optimiser() -> None:
    model = Heads()
    optimizer = adam(model)

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x)[step % 2], y).backward()
        optimizer.step()

    history = look(model, take_step, [optimizer], steps=30)
    for steps in range(1, len(history) + 1):
        assert said(find_disconnected_parameters(history[:steps])) == []


def test_blocks_that_are_left_out_at_random() -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks, self.head = nn.ModuleList(nn.Linear(64, 64) for _ in range(8)), nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = x + torch.relu(block(x)) if torch.rand(()) > 0.5 else x
            return self.head(x)

    for seed in range(5):
        torch.manual_seed(seed)
        history = fit(Dropped(), steps=30)
        for steps in range(2, len(history) + 1):
            assert said(find_disconnected_parameters(history[:steps])) == []


def test_layers_thawed_one_after_the_other() -> None:
    network = deep(nn.ReLU, 3)
    optimizer = adam(network[-1])

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        if step in (5, 10):
            optimizer.add_param_group({"params": list(network[4 if step == 5 else 2].parameters())})
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()

    history = look(network, take_step, [optimizer], steps=30)
    assert said(find_disconnected_parameters(history)) == []


def test_members_that_are_trained_out_of_sight_are_not_unused() -> None:
    """Their weights are copies of what runs; a bias before batch norm stays as it is."""
    model = nn.ModuleDict({"seen": deep(nn.ReLU, 2), "member": deep(nn.ReLU, 2)})
    optimizer = adam(model)

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        optimizer.zero_grad()
        F.cross_entropy(model["seen"](x), y).backward()
        optimizer.step()
        with torch.no_grad():
            for name, parameter in model["member"].named_parameters():
                parameter.mul_(0.99 if name.endswith("weight") else 1.0)

    assert said(find_disconnected_parameters(look(model, take_step, [optimizer], steps=30))) == []
