"""One planted fault gives one finding at the top; healthy networks give none above info."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from lightning_tricks.diagnosis import RULES, Finding, find
from lightning_tricks.diagnosis.diagnose import thinned
from lightning_tricks.nn import SELULinear
from lightning_tricks.probes import Snapshot

from .trainings import adam, deep, digits, lecun, sgd, train


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def above_info(history: list[Snapshot]) -> list[Finding]:
    return [finding for finding in find(history) if finding.rank > 0]


def every_problem(findings: Sequence[Finding]) -> set[str]:
    return {finding.problem for top in findings for finding in (top, *top.consequences)}


def scaled(network: nn.Sequential, layer: int, factor: float) -> nn.Sequential:
    with torch.no_grad():
        network[layer].weight.mul_(factor)  # type: ignore[operator,union-attr]
    return network


def filled(network: nn.Sequential, layer: int, value: float, what: str) -> nn.Sequential:
    with torch.no_grad():
        getattr(network[layer], what).fill_(value)
    return network


class Branches(nn.Module):
    """Residual branches whose last weights begin at zero, as adapters (LoRA) and zero-initialised blocks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(64, 64), nn.Linear(64, 10)
        self.first = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))
        self.last = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))
        for layer in self.last:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for first, last in zip(self.first, self.last, strict=True):
            x = x + last(torch.relu(first(x)))
        return self.head(x)


HEALTHY: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: deep(nn.ReLU, 4),
    "gelu, which starts linear": lambda: deep(nn.GELU, 3),
    "silu, which starts linear": lambda: deep(nn.SiLU, 3),
    "tanh": lambda: deep(nn.Tanh, 3),
    "batch norm": lambda: deep(nn.ReLU, 8, norm=nn.BatchNorm1d),
    "layer norm": lambda: deep(nn.GELU, 6, norm=nn.LayerNorm),
    "logistic regression": lambda: nn.Linear(64, 10),
    "self-normalising, 16 layers": lambda: nn.Sequential(*(SELULinear(64, 64) for _ in range(16)), nn.Linear(64, 10)),
    "output that begins at zero": lambda: filled(deep(nn.ReLU, 2), 4, 0.0, "weight"),
    "low-rank output": lambda: nn.Sequential(deep(nn.ReLU, 2)[:-1], nn.Linear(64, 8), nn.Linear(8, 10)),
    "branches that begin at zero": Branches,
}


@pytest.mark.parametrize("optimizer", [adam, sgd(0.1)], ids=["adam", "sgd"])
@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_networks_stay_silent(name: str, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    history = train(HEALTHY[name](), optimizer=optimizer)
    assert above_info(history) == []
    for steps in range(1, 6):  # and after a few steps, as a checkup and an impatient Trainer see them
        assert above_info(history[:steps]) == []


@pytest.mark.parametrize(("activation", "depth"), [(nn.ReLU, 8), (nn.GELU, 5), (nn.SiLU, 5)])
def test_a_faint_start_that_mends_itself_stays_silent(activation: type[nn.Module], depth: int) -> None:
    """With torch's default initialisation a deeper network begins faint; Adam recovers within a hundred steps."""
    history = train(deep(activation, depth), steps=260)
    assert history[-1].loss < 0.5
    for steps in range(1, len(history) + 1):
        assert above_info(history[:steps]) == []


def test_frozen_layers_stay_silent() -> None:
    network = deep(nn.ReLU, 3)
    network[0].requires_grad_(False)
    assert above_info(train(network)) == []


def test_recurrent_network_stays_silent() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(8, 32, 2, batch_first=True), nn.Linear(32, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x.view(-1, 8, 8))[0][:, -1])

    assert above_info(train(Recurrent(), steps=60)) == []


FAULTS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "dead units": (lambda: filled(deep(nn.ReLU, 5), 4, -10.0, "bias"), "dead_units", "5"),
    "equal weights": (lambda: filled(deep(nn.ReLU, 5), 4, 0.1, "weight"), "symmetric_weights", "4"),
    "weights too large": (lambda: scaled(lecun(deep(nn.Tanh, 6)), 4, 60.0), "saturation", "5"),
    "weights large": (lambda: scaled(lecun(deep(nn.Tanh, 6)), 4, 12.0), "saturation", "5"),
    "weights too small": (lambda: scaled(lecun(deep(nn.Tanh, 8)), 6, 1e-4), "linearity", "7"),
    "no activation": (
        lambda: nn.Sequential(*(nn.Linear(64, 64) for _ in range(3)), nn.Linear(64, 10)),
        "linearity",
        "0",
    ),
    "units always on": (lambda: filled(deep(nn.ReLU, 2), 0, 20.0, "bias"), "linearity", "1"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_one_finding_at_the_top(name: str) -> None:
    make, problem, layer = FAULTS[name]
    found = above_info(train(make(), optimizer=sgd(0.01)))
    assert [(finding.problem, finding.layer) for finding in found[:1]] == [(problem, layer)]
    assert len(found) == 1
    assert found[0].step == 0
    assert found[0].evidence
    assert found[0].explanation.count(".") >= 2
    assert found[0].remedies


def test_the_first_word_about_dead_units_is_of_them() -> None:
    """With small batches the fading gradient would be known before the units are."""
    history = train(filled(deep(nn.ReLU, 5), 4, -10.0, "bias"), optimizer=sgd(0.01))
    for steps in range(1, len(history) + 1):
        assert {finding.problem for finding in above_info(history[:steps])} <= {"dead_units"}
    assert "bias" in above_info(history)[0].remedies[0].text


def test_units_of_small_slope_are_not_sent_to_an_initialiser_first() -> None:
    """No initial weights carry a logistic network of 20 layers; other units or normalisation do."""
    worst = above_info(train(deep(nn.Sigmoid, 20)))[0]
    assert [remedy.action for remedy in worst.remedies[:2]] == ["swap_activation", "insert_batch_norm"]
    cures: dict[str, Callable[[], nn.Module]] = {
        "swap_activation": lambda: nn.Sequential(*(SELULinear(64, 64) for _ in range(20)), nn.Linear(64, 10)),
        "insert_batch_norm": lambda: deep(nn.Sigmoid, 20, norm=nn.BatchNorm1d),
    }
    sick = train(deep(nn.Sigmoid, 20), steps=260)[-1].loss
    for remedy in worst.remedies[:2]:
        assert train(cures[remedy.action](), steps=260)[-1].loss < 0.5 * sick


def test_a_softplus_that_makes_a_scale_or_a_loss_is_no_hidden_layer() -> None:
    class Variational(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(64, 32), nn.Linear(16, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean, scale = self.encoder(x).chunk(2, 1)
            return self.decoder(mean + (nn.functional.softplus(scale) + 5.0) * torch.randn_like(scale))

    assert above_info(train(Variational())) == []


def test_raw_input_is_found() -> None:
    (finding,) = above_info(train(deep(nn.ReLU, 3), normalised=False))
    assert (finding.problem, finding.layer) == ("unnormalized_input", "0")
    x, _ = digits(normalised=False)
    assert finding.evidence["root mean square"] == pytest.approx(float(x.square().mean().sqrt()), rel=0.05)


def test_pixels_between_zero_and_one_are_no_fault() -> None:
    x, y = digits(normalised=False)
    batches = [(x[i : i + 64] / 16, y[i : i + 64]) for i in range(0, 1600, 64)]
    assert above_info(train(deep(nn.ReLU, 3), batches=batches)) == []


def test_deep_logistic_network_has_its_consequences_folded() -> None:
    found = above_info(train(deep(nn.Sigmoid, 20), normalised=False))
    assert {finding.problem for finding in found} == {"vanishing_gradient", "unnormalized_input"}
    worst = found[0]
    assert worst.problem == "vanishing_gradient"
    assert worst.severity == "critical"
    assert [consequence.problem for consequence in worst.consequences] == ["linearity", "collapsed_output"]


def test_first_nan_is_named_at_once() -> None:
    class Breaks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x - 1e9).log()

    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), Breaks(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    found = find(train(network, steps=3))
    assert (found[0].problem, found[0].layer, found[0].severity) == ("non_finite", "3", "critical")
    assert found[0].evidence["tensor"] == "input"


def test_a_loss_that_overflows_on_its_own_is_named_also_from_a_stored_history() -> None:
    class Overflows(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.detach() * float("inf") + x

    history = train(nn.Sequential(deep(nn.ReLU, 2), Overflows()), steps=2)
    for snapshots in (history, [Snapshot.from_dict(snapshot.to_dict()) for snapshot in history]):
        (finding,) = [found for found in find(snapshots) if found.problem == "non_finite"]
        assert finding.layer is None
        assert finding.evidence["tensor"] == "loss"


def test_a_look_at_some_layers_alone_is_judged_too() -> None:
    history = train(filled(deep(nn.ReLU, 5), 4, -10.0, "bias"), steps=40)
    part = [snapshot.only(lambda name: name == "5") for snapshot in history]
    assert [(finding.problem, finding.layer) for finding in above_info(part)] == [("dead_units", "5")]


def test_weights_blown_up_by_the_learning_rate_are_named() -> None:
    found = find(train(deep(nn.ReLU, 5), optimizer=sgd(1e5)))
    assert "non_finite" in every_problem(found)


def test_exploding_gradient_is_found() -> None:
    network = deep(nn.ReLU, 12)
    for layer in network[2:-1:2]:
        scaled(nn.Sequential(layer), 0, 6.0)
    found = above_info(train(network, optimizer=sgd(1e-12)))
    assert "exploding_gradient" in every_problem(found)


def test_vanishing_gradient_is_found() -> None:
    found = above_info(train(lecun(deep(nn.Sigmoid, 10)), optimizer=sgd(0.01)))
    assert "vanishing_gradient" in every_problem(found)


def test_bias_problem_is_found() -> None:
    """Inputs with a large common mean: all weights into a unit move together, and its mean jumps."""

    class Shift(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 6.0

    network = nn.Sequential(deep(nn.Tanh, 2)[:2], Shift(), *deep(nn.Tanh, 2)[2:])
    history = train(network, optimizer=sgd(0.1))
    found = above_info(history)
    assert [(finding.problem, finding.layer) for finding in found] == [("bias_shift", "2")]
    assert found[0].evidence["mean energy"] > 0.96
    assert found[0].evidence["update coherence"] > 5 * found[0].evidence["coherence if independent"]
    healthy = train(nn.Sequential(deep(nn.Tanh, 2)[:2], nn.Identity(), *deep(nn.Tanh, 2)[2:]), optimizer=sgd(0.1))
    assert healthy[-1].loss < history[-1].loss


def test_a_finding_is_information_until_it_has_held_over_three_probed_steps() -> None:
    history = train(filled(deep(nn.ReLU, 5), 4, -10.0, "bias"), steps=5)
    assert [finding.rank for finding in find(history[:2])] == [0] * len(find(history[:2]))
    assert find(history[:4])[0].rank > 0


def test_a_problem_that_has_gone_is_none() -> None:
    sick = train(filled(deep(nn.ReLU, 5), 4, -10.0, "bias"), steps=40)
    well = train(deep(nn.ReLU, 5), steps=130)
    later = [snapshot for snapshot in well if snapshot.step > sick[-1].step]
    assert above_info([*sick, *later]) == []


def test_ignored_problems_are_not_found() -> None:
    history = train(deep(nn.ReLU, 3), steps=30, normalised=False)
    assert find(history, ignore=("unnormalized_input",)) == ()
    with pytest.raises(ValueError, match="unknown problem to ignore 'tiredness'; known are linearity, "):
        find(history, ignore=("tiredness",))


def test_every_rule_reads_a_history_without_sums() -> None:
    """As it is after a checkpoint: the records alone."""
    history = train(deep(nn.Sigmoid, 20), normalised=False)
    stored = [Snapshot.from_dict(snapshot.to_dict()) for snapshot in history]
    assert [(f.problem, f.layer, f.severity) for f in find(stored)] == [
        (f.problem, f.layer, f.severity) for f in find(history)
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.problem)
def test_rules_accept_an_empty_snapshot(rule: Callable[..., list[Finding]]) -> None:
    assert rule([Snapshot()]) == []


def test_a_long_history_is_thinned_evenly_and_for_good() -> None:
    history = [Snapshot(step) for step in range(1000)]
    for length in (10, 48, 49, 200, 999, 1000):
        steps = [snapshot.step for snapshot in thinned(history[:length])]
        assert steps == sorted(set(steps))
        assert len(steps) <= 48
        assert steps[:8] == list(range(8))
        assert steps[-1] == length - 1
        assert steps[-16:] == list(range(max(length - 16, 0), length))[-len(steps) :]
        gaps = {after - before for before, after in itertools.pairwise(steps[8:-16])}
        assert len(gaps) <= 1
    short, long = ({s.step for s in thinned(history[:n])} for n in (200, 1000))
    assert {step for step in long if step < 184} <= short  # those once left out stay so


def test_no_history_no_finding() -> None:
    assert find([]) == ()
