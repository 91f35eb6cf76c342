"""Who holds a parameter: an optimiser, a list, another module, nobody."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_tricks.diagnosis.rules.disconnected_parameters import find_disconnected_parameters
from lightning_tricks.probes import Snapshot
from tests.diagnosis.custom import fit, look, said
from tests.diagnosis.rules.test_disconnected_parameters import adam, only
from tests.diagnosis.trainings import deep


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_without_an_optimiser_nothing_is_known_of_one() -> None:
    network = deep(nn.ReLU, 2)
    optimizer = adam(network)

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    assert said(find_disconnected_parameters(look(network, take_step, steps=10))) == []
    assert find_disconnected_parameters(look(network, lambda x, y, step: network(x), [optimizer], steps=10)) == []


@pytest.mark.parametrize(("replaced", "severity"), [((2,), "warning"), ((0, 2), "warning"), ((0, 2, 4), "critical")])
def test_an_optimiser_of_layers_that_were_replaced_since(replaced: tuple[int, ...], severity: str) -> None:
    network = deep(nn.ReLU, 2)
    optimizer = adam(network)
    for layer in replaced:
        network[layer] = nn.Linear(64, 10 if layer == 4 else 64)
    history = fit(network, optimizer=optimizer, steps=10)
    found = only(find_disconnected_parameters(history))
    assert found.severity == severity
    assert found.evidence["tensors in the optimiser that are not the model's"] == 2 * len(replaced)
    assert found.remedies[0].action == "remake_optimizer"
    stored = [Snapshot.from_dict(snapshot.to_dict()) for snapshot in history]
    assert find_disconnected_parameters(stored) == [found]


def test_tensors_of_no_module_that_are_trained() -> None:
    """A temperature beside layers that are left out on purpose."""
    network, temperature = deep(nn.ReLU, 3), torch.ones((), requires_grad=True)
    optimizer = torch.optim.Adam([*network[-1].parameters(), temperature])
    history = fit(network, lambda y, t: F.cross_entropy(y * temperature, t), optimizer=optimizer, steps=10)
    assert said(find_disconnected_parameters(history)) == []


def test_copies_that_are_stepped_and_written_back_are_no_fault() -> None:
    """As where an optimiser holds its weights in a higher precision."""
    network = deep(nn.ReLU, 2)
    copies = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = torch.optim.SGD(copies, lr=0.05)

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        network.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
        with torch.no_grad():
            for own, held in zip(network.parameters(), copies, strict=True):
                own.copy_(held.sub_(0.05 * own.grad))

    assert said(find_disconnected_parameters(look(network, take_step, [optimizer], steps=10))) == []


class Listed(nn.Module):
    """Has layers in a Python list, of a teacher or of its own."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.hidden, self.head = [*layers], nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = layer(x).relu()
        return self.head(x)


def test_layers_in_a_python_list() -> None:
    network = Listed(nn.Linear(64, 64), nn.Linear(64, 64))
    history = fit(network, steps=10)
    found = only(find_disconnected_parameters(history))
    assert (found.severity, found.layer) == ("warning", None)
    assert found.evidence["weights outside of the model"] == "hidden[0].weight, hidden[1].weight"
    assert "make hidden a torch.nn.ModuleList" in found.remedies[0].text
    assert said(find_disconnected_parameters(history[:2])) == []
    optimizer = adam(network, *network.hidden)
    assert find_disconnected_parameters(fit(network, optimizer=optimizer, steps=10)) == []
    network.hidden[0].requires_grad_(False)
    network.hidden[1].requires_grad_(False)
    assert find_disconnected_parameters(fit(network, steps=10)) == []


def test_a_trained_network_in_a_list_and_one_that_others_train() -> None:
    teacher = deep(nn.ReLU, 2)
    fit(teacher, steps=30)
    assert said(find_disconnected_parameters(fit(Listed(teacher[0], teacher[2]), steps=10))) == []
    network = Listed(nn.Linear(64, 64), nn.Linear(64, 64))
    hidden, known = adam(*network.hidden), adam(network)

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        hidden.zero_grad()
        known.zero_grad()
        F.cross_entropy(network(x), y).backward()
        hidden.step()
        known.step()

    assert find_disconnected_parameters(look(network, take_step, [known], steps=10)) == []


def test_a_target_network_in_the_optimiser() -> None:
    online = deep(nn.ReLU, 2)
    model = nn.ModuleDict({"online": online, "target": copy.deepcopy(online)})
    optimizer = adam(model)

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        with torch.no_grad():
            wanted = 0.9 * model["target"](x).amax(1) + (y > 4)
        optimizer.zero_grad()
        F.smooth_l1_loss(model["online"](x).gather(1, y[:, None])[:, 0], wanted).backward()
        optimizer.step()

    assert said(find_disconnected_parameters(look(model, take_step, [optimizer], steps=30))) == []


@pytest.mark.parametrize("known", [False, True])
def test_an_optimiser_that_steps_inside_of_the_backward_pass(known: bool) -> None:
    network = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    optimizers = {parameter: torch.optim.Adam([parameter]) for parameter in network.parameters()}

    def step_at_once(parameter: Tensor) -> None:
        optimizers[parameter].step()  # type: ignore[index]
        parameter.grad = None

    for parameter in network.parameters():
        parameter.register_post_accumulate_grad_hook(step_at_once)
    own = list(optimizers.values()) if known else []
    history = look(network, lambda x, y, _: F.cross_entropy(network(x), y).backward(), own, steps=10)
    for looks in range(1, len(history) + 1):
        assert find_disconnected_parameters(history[:looks]) == []
    assert all(record.reached for record in history[0].parameters)
    assert all((record.update > 0) is known for record in history[0].parameters)
    assert [record.signal is not None for record in history[0].weighted] == [True, True]


def test_reentrant_checkpoints_that_work() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = checkpoint(self.inner, self.first(x).relu(), use_reentrant=True)
            return self.head(x.relu())

    assert find_disconnected_parameters(fit(Checkpointed(), steps=10)) == []
