"""Learning rates far too high are named, with a better one; large and small updates that work are not."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_tricks.checkup import checkup
from lightning_tricks.diagnosis import Finding, find
from lightning_tricks.diagnosis.history.progress import recent_loss, typical_ratio
from lightning_tricks.diagnosis.rules.learning_rate_too_high import find_learning_rate_too_high
from lightning_tricks.diagnosis.rules.learning_rate_too_low import find_learning_rate_too_low
from lightning_tricks.probes import ParameterRecord, Probe, Snapshot
from lightning_tricks.probes.records.loss_and_norm import LossRecord
from lightning_tricks.watch.selection import is_probed
from tests.diagnosis.trainings import Optimizer, deep, digits, lecun, sgd
from tests.diagnosis.watching import Convolutions, Recurrent, adam, classify, momentum, train, watched


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def alarms(history: Sequence[Snapshot]) -> list[Finding]:
    """Of both rules, above info, for every part of the history that ends at a look."""
    parts = [history[:looks] for looks in range(1, len(history) + 1)]
    found = [(find_learning_rate_too_high(part), find_learning_rate_too_low(part)) for part in parts]
    return [finding for pair in found for rule in pair for finding in rule if finding.rank > 0]


HEALTHY: dict[str, tuple[Callable[[], nn.Module], Optimizer]] = {
    "relu, adam": (lambda: deep(nn.ReLU, 3), adam(1e-3)),
    "relu, adam 1e-2": (lambda: deep(nn.ReLU, 3), adam(1e-2)),
    "wide, adam 1e-2": (lambda: deep(nn.ReLU, 2, width=256), adam(1e-2)),
    "relu, sgd": (lambda: deep(nn.ReLU, 3), sgd(0.1)),
    "relu, sgd 0.01: slow": (lambda: deep(nn.ReLU, 3), sgd(0.01)),
    "tanh, momentum": (lambda: deep(nn.Tanh, 3), momentum(0.05)),
    "gelu, rmsprop": (lambda: deep(nn.GELU, 3), lambda p: torch.optim.RMSprop(p, lr=1e-3)),
    "layer norm, adam": (lambda: deep(nn.GELU, 4, norm=nn.LayerNorm), adam(3e-3)),
    "batch norm, sgd 1": (lambda: deep(nn.ReLU, 4, norm=nn.BatchNorm1d), sgd(1.0)),
    "batch norm, sgd 3": (lambda: deep(nn.ReLU, 4, norm=nn.BatchNorm1d), sgd(3.0)),
    "convolutions, batch norm, sgd 1": (lambda: Convolutions(True), sgd(1.0)),
    "convolutions, adam": (lambda: Convolutions(False), adam(3e-3)),
    "recurrent, adam": (Recurrent, adam(1e-2)),
    "logistic regression, adam 0.1": (lambda: nn.Linear(64, 10), adam(0.1)),
    "one logistic layer, sgd 1": (lambda: deep(nn.Sigmoid, 1), sgd(1.0)),
    "faint start, sgd 0.1": (lambda: deep(nn.ReLU, 8), sgd(0.1)),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_learning_rates_that_work_stay_silent(name: str) -> None:
    make, optimizer = HEALTHY[name]
    assert alarms(train(make(), optimizer)) == []


@pytest.mark.parametrize("batch", [2, 4])
def test_noisy_losses_of_small_batches_stay_silent(batch: int) -> None:
    assert alarms(train(deep(nn.ReLU, 3), adam(1e-3), 300, batch=batch)) == []


@pytest.mark.parametrize("steps", [100, 2000])
def test_warm_up_stays_silent(steps: int) -> None:
    network = deep(nn.ReLU, 3)
    optimizer = torch.optim.Adam(network.parameters())
    history = watched(
        network, optimizer, classify(network), 260, rate_at=lambda step: 3e-3 * min(1.0, (step + 1) / steps)
    )
    assert alarms(history) == []
    unknown = [dataclasses.replace(snapshot, learning_rate=math.nan) for snapshot in history]
    assert alarms(unknown) == []


def test_the_end_of_a_schedule_stays_silent() -> None:
    network = deep(nn.ReLU, 3)
    optimizer = torch.optim.Adam(network.parameters())
    schedule = lambda step: 3e-3 * (0.5 + 0.5 * math.cos(math.pi * min(step / 150, 1.0))) + 1e-9  # noqa: E731
    assert alarms(watched(network, optimizer, classify(network), 400, rate_at=schedule)) == []


def test_fine_tuning_of_a_good_network_stays_silent() -> None:
    network = deep(nn.ReLU, 3, width=128)
    train(network, adam(3e-3), 250)
    history = train(network, adam(1e-6), 160)
    assert history[0].loss < 0.3
    assert typical_ratio(history[-1]) < 1e-4
    assert alarms(history) == []


def test_an_adversarial_pair_whose_losses_rise_stays_silent() -> None:
    generator_, critic = deep(nn.ReLU, 1), deep(nn.LeakyReLU, 2)
    pair = nn.ModuleDict({"generator": nn.Sequential(generator_, nn.Linear(10, 64)), "critic": critic})
    optimizers = [torch.optim.Adam(part.parameters(), lr=3e-3, betas=(0.5, 0.999)) for part in pair.values()]
    x, _ = digits()
    history = []
    for step in range(300):
        with Probe(pair, optimizers, step=step) if is_probed(step, 50) else nullcontext() as probe:
            fake, real = pair["generator"](torch.randn(64, 64)), x[torch.randint(len(x), (64,))]
            optimizers[1].zero_grad()
            (F.softplus(-critic(real)[:, 0]) + F.softplus(critic(fake.detach())[:, 0])).mean().backward()
            optimizers[1].step()
            optimizers[0].zero_grad()
            loss = F.binary_cross_entropy_with_logits(critic(fake)[:, 0], torch.ones(64))
            loss.backward()
            optimizers[0].step()
        if probe is not None:
            history.append(probe.snapshot())
    assert history[-1].loss > 1.5 * history[0].loss
    assert alarms(history) == []


TOO_HIGH: dict[str, tuple[Callable[[], nn.Module], Optimizer]] = {
    "relu, adam 0.1": (lambda: deep(nn.ReLU, 3, width=128), adam(0.1)),
    "relu, adam 1": (lambda: deep(nn.ReLU, 3), adam(1.0)),
    "relu, sgd 10": (lambda: deep(nn.ReLU, 3), sgd(10.0)),
    "tanh, adam 1": (lambda: deep(nn.Tanh, 3), adam(1.0)),
    "tanh, momentum 5": (lambda: deep(nn.Tanh, 3), momentum(5.0)),
    "layer norm, sgd 10": (lambda: deep(nn.ReLU, 4, norm=nn.LayerNorm), sgd(10.0)),
    "batch norm, sgd 100": (lambda: deep(nn.ReLU, 4, norm=nn.BatchNorm1d), sgd(100.0)),
    "convolutions, adam 1": (lambda: Convolutions(False), adam(1.0)),
    "recurrent, sgd 100": (Recurrent, sgd(100.0)),
}


@pytest.mark.parametrize("name", TOO_HIGH)
def test_too_high_is_named_within_eight_steps(name: str) -> None:
    make, optimizer = TOO_HIGH[name]
    history = train(make(), optimizer, 8, every=1)
    clean = list(itertools.takewhile(lambda snapshot: not snapshot.suspicious, history))
    (finding,) = find_learning_rate_too_high(clean)
    assert finding.rank > 0
    assert finding.layer is None
    assert finding.step <= 2
    assert finding.evidence["loss of a guess"] == pytest.approx(math.log(10))
    assert "lower the learning rate" in finding.remedies[0].text


@pytest.mark.parametrize(
    ("make", "optimizer"),
    [(lambda: deep(nn.ReLU, 3), adam(0.1)), (lambda: Convolutions(False), momentum(5.0))],
    ids=["adam", "momentum"],
)
def test_a_network_killed_at_the_start_is_still_told_by_its_first_updates(
    make: Callable[[], nn.Module], optimizer: Optimizer
) -> None:
    history = train(make(), optimizer, 300)
    assert typical_ratio(history[-1]) < 0.1 * typical_ratio(history[0])
    (finding,) = find_learning_rate_too_high(history)
    assert finding.rank > 0
    assert finding.step <= 1
    stored = [Snapshot.from_dict(snapshot.to_dict()) for snapshot in history]
    assert find_learning_rate_too_high(stored) == [finding]


def test_the_learning_rate_that_is_advised_works() -> None:
    for optimizer, factory in ((adam(1.0), adam), (sgd(30.0), sgd)):
        (finding,) = find_learning_rate_too_high(train(deep(nn.ReLU, 3), optimizer, 4, every=1)[:3])
        advised = float(finding.remedies[0].text.rpartition(" ")[2])
        assert recent_loss(train(deep(nn.ReLU, 3), factory(advised), 300)) < 0.5


def test_a_checkup_names_both() -> None:
    x, y = digits()
    batches = [(x[i : i + 64], y[i : i + 64]) for i in range(0, 512, 64)]
    network = deep(nn.ReLU, 3)
    for rate, problem in ((1.0, "learning_rate_too_high"), (1e-8, "learning_rate_too_low")):
        diagnosis = checkup(network, batches, F.cross_entropy, torch.optim.Adam(network.parameters(), rate))
        (finding,) = [found for found in diagnosis.findings if found.problem == problem]
        assert finding.rank > 0
        assert finding.evidence["learning rate"] == rate


def _raw() -> tuple[nn.Module, float]:
    return deep(nn.ReLU, 3), 100.0


def _loud_output() -> tuple[nn.Module, float]:
    network = deep(nn.ReLU, 3)
    with torch.no_grad():
        network[-1].weight.mul_(100.0)  # type: ignore[operator,union-attr]
    return network, 1.0


def _exploding() -> tuple[nn.Module, float]:
    network = lecun(deep(nn.ReLU, 6))
    with torch.no_grad():
        for layer in network[::2]:
            layer.weight.mul_(6.0)  # type: ignore[operator,union-attr]
    return network, 1.0


@pytest.mark.parametrize("make", [_raw, _loud_output, _exploding])
def test_what_was_wrong_before_the_first_update_is_no_matter_of_the_learning_rate(
    make: Callable[[], tuple[nn.Module, float]],
) -> None:
    network, scale = make()
    history = train(network, sgd(0.1), 8, every=1, scale=scale)
    clean = list(itertools.takewhile(lambda snapshot: not snapshot.suspicious, history))
    assert max(snapshot.loss for snapshot in clean[1:]) > clean[0].loss or clean[0].loss > 5.0
    assert max(typical_ratio(snapshot) for snapshot in clean) > 0.03
    assert alarms(clean) == []


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_summed_loss_is_named(reduction: str) -> None:
    network = deep(nn.ReLU, 3)
    x, y = digits()
    generator = torch.Generator().manual_seed(0)

    def loss_at(step: int) -> Tensor:
        chosen = torch.randint(len(x), (128,), generator=generator)
        return nn.functional.cross_entropy(network(x[chosen]), y[chosen], reduction=reduction)

    history = watched(network, sgd(0.2)(list(network.parameters())), loss_at, 160)
    if reduction == "mean":
        assert alarms(history) == []
        return
    (finding,) = find_learning_rate_too_high(history)
    assert finding.evidence["terms that the loss is the sum of"] == 128
    assert "summed" in finding.explanation
    assert [remedy.action for remedy in finding.remedies[:2]] == ["mean_loss", "lower_learning_rate"]
    assert 'cross_entropy(..., reduction="mean")' in finding.remedies[0].text
    assert float(finding.remedies[1].text.rpartition(" ")[2]) == pytest.approx(0.2 / 128, rel=0.3)


def test_a_sum_is_no_matter_where_the_size_of_a_gradient_does_not_count() -> None:
    network = deep(nn.ReLU, 3)
    x, y = digits()

    def loss_at(step: int) -> Tensor:
        return nn.functional.cross_entropy(network(x[:128]), y[:128], reduction="sum")

    history = watched(network, adam(1.0)(list(network.parameters())), loss_at, 20, 1)
    (finding,) = find_learning_rate_too_high(history)
    assert "terms that the loss is the sum of" not in finding.evidence
    assert "clip_gradients" not in [remedy.action for remedy in finding.remedies]


def test_a_warm_up_is_for_updates_that_come_down_by_themselves() -> None:
    for last, advised in ((0.2, False), (0.001, True)):
        (finding,) = find_learning_rate_too_high(made_up([0.5, 0.3, 0.2, last], [2.0, 12.0, 12.0, 12.0]))
        assert ("warm_up" in [remedy.action for remedy in finding.remedies]) is advised


def test_frozen_weights_are_not_counted() -> None:
    network = deep(nn.ReLU, 3)
    network[:4].requires_grad_(False)
    history = train(network, adam(1e-3))
    assert typical_ratio(history[0]) > 1e-3
    assert alarms(history) == []


def made_up(ratios: Sequence[float], losses: Sequence[float], steps: Sequence[int] | None = None) -> list[Snapshot]:
    def snapshots() -> Iterator[Snapshot]:
        for step, ratio, loss in zip(steps or range(len(ratios)), ratios, losses, strict=True):
            weight = ParameterRecord("w", "0", (8, 8), 8, gradient=0.1, weight=1.0, update=ratio, update_ratio=ratio)
            guess = (LossRecord("cross_entropy", "cross_entropy", value=loss, chance=2.0),)
            yield Snapshot(step, loss, parameters=(weight,), losses=guess)

    return list(snapshots())


def test_a_leap_is_information_until_it_has_held() -> None:
    looks = made_up([0.5, 0.3, 0.2, 0.1], [2.0, 12.0, 12.0, 12.0])
    assert [find_learning_rate_too_high(looks[:n])[0].severity for n in (2, 4)] == ["info", "warning"]
    far = made_up([0.5, 0.3, 0.2, 0.1], [2.0, 250.0, 250.0, 250.0])
    assert find_learning_rate_too_high(far)[0].severity == "critical"
    back = made_up([0.5, 0.3, 0.2, 0.1, 0.1], [2.0, 12.0, 1.9, 1.5, 1.0])
    assert find_learning_rate_too_high(back) == []


def test_updates_that_run_away_are_named_before_the_loss_shows_it() -> None:
    assert find_learning_rate_too_high(made_up([0.04, 0.05, 0.07, 1.6], [2.0, 2.0, 1.9, 1.9]))[0].step == 0
    assert find_learning_rate_too_high(made_up([1.6, 0.5, 0.3, 0.2], [2.0, 2.0, 1.9, 1.9])) == []
    assert find_learning_rate_too_high(made_up([1e5], [2.0]))[0].severity == "critical"


def test_the_losses_between_the_looks_count() -> None:
    looks = made_up([0.2, 0.1, 0.1, 0.01, 0.01, 0.01], [2.0, 2.0, 2.0, 2.0, 2.0, 2.0], [0, 1, 2, 50, 100, 150])
    assert find_learning_rate_too_high(looks) == []
    looks[3] = dataclasses.replace(looks[3], recent_losses=(2.0, 7.0, 3.0))
    (finding,) = find_learning_rate_too_high(looks)
    assert finding.evidence["highest loss"] == 7.0


def test_histories_without_numbers_are_no_finding() -> None:
    old = {"step": 0, "loss": None, "nonfinite_loss": False, "loss_scale": 1.0, "not_seen": {}}
    kinds = {kind: [] for kind in ("activations", "weighted", "parameters")}
    for loss in (None, 2.3):
        history = [Snapshot.from_dict({**old, **kinds, "step": step, "loss": loss}) for step in (0, 1, 100, 200)]
        for part in (history[:1], history):
            assert find_learning_rate_too_high(part) == find_learning_rate_too_low(part) == []
            assert find(part) == ()
    broken = made_up([0.5, math.inf, math.nan, 0.0], [2.0, math.inf, math.nan, math.nan])
    assert all(len(find_learning_rate_too_high(broken[:n])) <= 1 for n in range(1, 5))
    assert find_learning_rate_too_low(broken) == []
