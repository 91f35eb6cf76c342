"""What was seen of a training, and what forbids to call it healthy."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import lightning_tricks as lt
from lightning_tricks.diagnosis import PROBLEMS
from lightning_tricks.diagnosis.coverage import coverage, doubt
from lightning_tricks.probes import Snapshot

from .custom import fit
from .trainings import deep, sgd, train


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(64, 8), torch.randint(2, (64,))


def test_shares_are_over_trainable_tensors_and_all_looks() -> None:
    network = deep(nn.ReLU, 2)
    network[0].requires_grad_(False)
    (network[2].bias,) = [network[2].bias.requires_grad_(False)]
    history = train(network, steps=3, every=1)
    seen = coverage(history)
    assert (seen.looks, seen.layers, seen.trainable, seen.frozen) == (3, 5, 3, 3)
    assert seen.gradient == seen.update == 1.0
    assert str(seen) == "5 layers, 3 trainable tensors (gradient seen in 100%, update in 100%), 3 frozen"
    half = [dataclasses.replace(s, parameters=s.parameters[:0]) for s in history[:1]] + history[1:]
    assert coverage(half).gradient == 1.0
    record = dataclasses.replace(history[0].parameters[2], gradient=float("nan"), update=0.0)
    changed = [dataclasses.replace(history[0], parameters=(record, *history[0].parameters[4:])), *history[1:]]
    assert coverage(changed).gradient == coverage(changed).update == pytest.approx(8 / 9)


def test_what_no_pattern_went_to_is_named_while_the_looks_are_few() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(64, 10), nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    history = fit(Experts(), steps=12, every=1)
    assert coverage(history[:9]).without_gradient == ("idle.weight", "idle.bias")
    assert coverage(history).without_gradient == ()
    assert coverage(history).gradient == 0.5


def test_a_rule_judges_where_what_it_reads_was_seen() -> None:
    history = train(deep(nn.ReLU, 2), steps=3, every=1)
    seen = lt.diagnose(history).coverage
    assert set(seen.not_judged) == {"overfitting", "batch_norm_mismatch", "batch_mixing", "target_leak"}
    assert set(seen.judged) | set(seen.not_judged) == set(PROBLEMS)
    validated = [dataclasses.replace(snapshot, validation_loss=1.0) for snapshot in history]
    assert "overfitting" in lt.diagnose(validated).coverage.judged
    assert lt.diagnose([]).coverage.judged == ()
    assert f"{len(seen.judged)} of {len(PROBLEMS)} rules could judge" in str(seen)


def test_nothing_seen_is_no_health() -> None:
    assert doubt([]) == "nothing was looked at yet"
    assert lt.diagnose([]).state == "unknown"
    with lt.probe(nn.Linear(2, 2)) as idle:
        pass
    diagnosis = lt.diagnose([idle.snapshot()])
    assert diagnosis.state != "healthy"
    assert not diagnosis.healthy


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_a_scripted_network_is_unknown() -> None:
    network = torch.jit.script(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with lt.probe(network, optimizer) as p:
        x, y = batch()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    diagnosis = lt.diagnose([p.snapshot()])
    assert diagnosis.state == "unknown"
    assert diagnosis.verdict == "Unknown: no layer was seen in 1 probed step (0)."


def test_gradients_without_a_step_are_unknown() -> None:
    network = nn.Linear(8, 2)
    with lt.probe(network) as p:
        x, y = batch()
        nn.functional.cross_entropy(network(x), y).backward()
    diagnosis = lt.diagnose([p.snapshot()])
    assert (diagnosis.state, diagnosis.healthy) == ("unknown", False)
    assert diagnosis.verdict == "Unknown: no weight was seen to move in 1 probed step (0)."
    assert diagnosis.to_dict()["state"] == "unknown"
    assert diagnosis.to_dict()["coverage"]["gradient"] == 1.0
    assert diagnosis.to_dict()["coverage"]["update"] == 0.0


def test_a_forward_pass_without_a_gradient_is_unknown() -> None:
    with lt.probe(network := nn.Linear(8, 2)) as p:
        nn.functional.cross_entropy(network(batch()[0]), batch()[1])
    assert lt.diagnose([p.snapshot()]).verdict == "Unknown: no gradient was seen in 1 probed step (0)."


def test_a_validation_at_a_guess_is_no_health() -> None:
    """What is learned by heart and nothing else; a guess knows the shares of the digits, whose ln 10 is 2.303."""
    history = train(deep(nn.ReLU, 2), steps=130, every=10)
    assert lt.diagnose([dataclasses.replace(s, validation_loss=0.5) for s in history]).healthy
    diagnosis = lt.diagnose([dataclasses.replace(s, validation_loss=2.31) for s in history])
    assert diagnosis.state == "unknown"
    assert diagnosis.verdict == "Unknown: on validation not better than a guess (loss 2.31, a guess has 2.301)."


@pytest.mark.parametrize(("noise", "state"), [(0.15, "unknown"), (0.01, "healthy")])
def test_a_loss_that_is_not_surely_under_a_guess_is_no_health(noise: float, state: str) -> None:
    history = train(deep(nn.ReLU, 2), steps=130, every=10)
    losses = [2.2 + noise * (-1) ** k for k in range(len(history))]
    diagnosis = lt.diagnose(
        [dataclasses.replace(s, loss=x, recent_losses=()) for s, x in zip(history, losses, strict=True)]
    )
    assert diagnosis.state == state
    assert ("not surely better than a guess" in diagnosis.verdict) is (state == "unknown")


def test_a_loss_that_rises_again_is_no_health() -> None:
    history = train(deep(nn.ReLU, 2), steps=130, every=10)

    def ending(*losses: float) -> list[Snapshot]:
        whole = [2.3 - 0.1 * k for k in range(len(history) - 6)] + list(losses)
        return [dataclasses.replace(s, loss=x, recent_losses=()) for s, x in zip(history, whole, strict=True)]

    assert lt.diagnose(ending(1.5, 1.51, 1.5, 1.51, 1.5, 1.51)).healthy
    assert lt.diagnose(ending(0.1, 0.11, 0.5, 0.51, 0.52, 0.53)).healthy  # far under a guess
    verdict = lt.diagnose(ending(1.3, 1.31, 1.9, 1.91, 1.92, 1.93)).verdict
    assert verdict.startswith("Unknown: the loss rises again after 1")


def test_a_loss_that_cannot_be_told_from_a_guess_is_no_health() -> None:
    """Targets that have nothing to do with the inputs, in batches of eight: their variance is hardly known."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(512, 4, generator=generator), torch.randn(512, 1, generator=generator)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    slow = torch.optim.SGD(network.parameters(), lr=1e-3)
    history = fit(network, nn.functional.mse_loss, optimizer=slow, steps=200, every=20, data=data, batch=8)
    verdict = lt.diagnose(history).verdict
    assert verdict.startswith(("Unknown: not surely better than a guess", "Unknown: not yet better than a guess"))


@pytest.mark.parametrize("rate", [0.0, 1e-12])
def test_weights_that_do_not_move_are_no_health(rate: float) -> None:
    history = train(deep(nn.ReLU, 2), steps=8, every=1, optimizer=sgd(rate))
    assert lt.diagnose(history).state != "healthy"


def test_zero_outputs_and_gradients_are_no_health() -> None:
    network = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1), nn.ReLU())
    nn.init.constant_(network[2].bias, -3.0)
    data = torch.randn(512, 4), torch.rand(512, 1) + 1.0
    history = fit(network, nn.functional.mse_loss, steps=60, data=data)
    assert lt.diagnose(history).state != "healthy"
    assert lt.checkup(network, data, nn.functional.mse_loss).state != "healthy"


@pytest.mark.parametrize("how", ["detached", "without gradient", "frozen"])
def test_a_checkup_that_trains_nothing_is_no_health(how: str) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
            self.net.requires_grad_(how != "frozen")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.set_grad_enabled(how != "without gradient"):
                out = self.net(x)
            return out.detach() if how == "detached" else out

    diagnosis = lt.checkup(Network(), batch(), nn.functional.cross_entropy)
    assert diagnosis.state != "healthy"
    assert not diagnosis.verdict.startswith("Healthy")
