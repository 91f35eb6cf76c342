"""Statistics of batch norm that cannot serve an evaluation are named, at any strength; moving ones are not."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.diagnosis import find
from lightning_tricks.diagnosis.rules.batch_norm_mismatch import find_batch_norm_mismatch
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.loss_and_norm import NormalizationRecord
from tests.diagnosis.custom import fit, look, said
from tests.diagnosis.trainings import digits


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def dense(momentum: float | None = 0.1, dropout: float = 0.0, *, bias: bool = False) -> nn.Sequential:
    """Two hidden layers of linear "0", dropout "1", batch norm "2", ReLU "3", linear "4" ..."""
    layers: list[nn.Module] = []
    for _ in range(2):
        norm = nn.BatchNorm1d(64, momentum=momentum)
        layers += [nn.Linear(64, 64, bias=bias), nn.Dropout(dropout), norm, nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def images() -> nn.Sequential:
    def block(channels: int, units: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, units, 3, padding=1, bias=False), nn.BatchNorm2d(units), nn.ReLU()]

    pooled = [nn.AvgPool2d(8), nn.Flatten(), nn.Linear(16, 10)]
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *block(1, 16), *block(16, 16), *pooled)


def in_eval_mode(network: nn.Module, steps: int = 30, data: tuple[Tensor, Tensor] | None = None) -> list[Snapshot]:
    network.eval()
    return fit(network, steps=steps, data=data)


@pytest.mark.parametrize("rate", [1e-3, 0.1, 3.0])
@pytest.mark.parametrize("make", [dense, images])
def test_statistics_that_follow_are_well_at_any_learning_rate(make, rate: float) -> None:  # type: ignore[no-untyped-def]
    network = make()
    history = fit(network, optimizer=torch.optim.SGD(network.parameters(), rate), steps=110)
    for steps in range(1, len(history) + 1):
        assert find_batch_norm_mismatch(history[:steps]) == []


def test_an_average_over_all_steps_lags_behind_by_its_nature() -> None:
    assert find_batch_norm_mismatch(fit(dense(momentum=None), steps=110)) == []


@pytest.mark.parametrize(
    ("momentum", "named"),
    [(lambda step: 1e-3, True), (lambda step: 1.0 / (step + 1), False), (lambda step: math.nan, False)],
    ids=["slow", "an average", "unknown"],
)
def test_only_a_momentum_that_is_known_and_stays_says_when_they_follow(
    momentum: Callable[[int], float], named: bool
) -> None:
    far = NormalizationRecord("2", samples=64, patterns=64, variance_ratio=math.exp(2.0), log_variance_gap=2.0)
    history = [
        Snapshot(step, normalizations=(dataclasses.replace(far, momentum=momentum(step)),))
        for step in range(0, 500, 50)
    ]
    assert bool(find_batch_norm_mismatch(history)) is named


def test_rare_features_are_off_in_every_batch() -> None:
    """One pattern in a thousand has a given feature: its variance in a batch is zero, or far above the running one."""
    x = (torch.rand(2000, 64) < 1e-3).float() * 5
    x[:, :32] = torch.randn(2000, 32)
    data = x, (x[:, :10]).argmax(1)
    history = fit(nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 10)), data=data, steps=110)
    assert history[-1].normalizations[0].log_variance_gap > 1.0
    assert find_batch_norm_mismatch(history) == []


@pytest.mark.parametrize("batch", [2, 4])
@pytest.mark.parametrize(("make", "layer"), [(dense, "2"), (images, "2")])
def test_tiny_batches_are_named(make, layer: str, batch: int) -> None:  # type: ignore[no-untyped-def]
    found = find_batch_norm_mismatch(fit(make(), batch=batch, steps=10))
    severity = "critical" if make is dense and batch == 2 else "warning"
    assert said(found) == [(severity, layer)]
    assert found[0].evidence["batch size"] == batch
    # The claim about their noise: the relative error of the variance of so many Gaussian numbers.
    spread = torch.randn(20_000, batch).var(1).std().item()
    assert found[0].evidence["relative noise of the variance"] == pytest.approx(spread, rel=0.1)


def test_a_partial_batch_now_and_then_is_no_fault() -> None:
    network = dense()
    optimizer = torch.optim.Adam(network.parameters())

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        size = 3 if step in (2, 8, 50) else 64
        optimizer.zero_grad()
        F.cross_entropy(network(x[:size]), y[:size]).backward()
        optimizer.step()

    history = look(network, take_step, [optimizer])
    for steps in range(3, len(history) + 1):
        assert find_batch_norm_mismatch(history[:steps]) == []


def test_statistics_too_slow_to_follow() -> None:
    network = dense(momentum=1e-4)
    history = fit(network, steps=130)
    (found,) = find_batch_norm_mismatch(history)
    assert (found.severity, found.layer) == ("warning", "2")
    assert found.evidence["steps they need to follow"] == pytest.approx(3e4)
    x, y = digits()
    with torch.no_grad():  # and it is so: the same network, as training and as evaluation see it
        loss = {mode: F.cross_entropy(network.train(mode)(x), y).item() for mode in (True, False)}
    assert loss[False] > 2 * loss[True]
    assert find_batch_norm_mismatch(fit(dense(momentum=0.01), steps=130)) == []


def test_statistics_that_never_move() -> None:
    history = fit(dense(momentum=0.0), steps=130)
    (found,) = find_batch_norm_mismatch(history)
    assert (found.severity, found.layer) == ("warning", "2")
    assert "never move" in found.explanation
    assert found.remedies[0].action == "raise_momentum"


def shared(activation: type[nn.Module]) -> nn.Sequential:
    """Three layers, "0", "3" and "6", before one batch norm, "1"."""
    norm = nn.BatchNorm1d(64)
    hidden = [[nn.Linear(64, 64, bias=False), norm, activation()] for _ in range(3)]
    return nn.Sequential(*(layer for layers in hidden for layer in layers), nn.Linear(64, 10))


def test_a_norm_that_several_layers_share() -> None:
    network = shared(nn.ReLU)
    history = fit(network, steps=130)
    (found,) = find_batch_norm_mismatch(history)
    assert (found.severity, found.layer) == ("warning", "1")
    assert found.evidence["layers that share it"] == "0, 3, 6"
    assert found.remedies[0].action == "own_normalization"
    x, y = digits()
    with torch.no_grad():
        loss = {mode: F.cross_entropy(network.train(mode)(x), y).item() for mode in (True, False)}
    assert loss[False] > 1.5 * loss[True]


def test_layers_whose_outputs_are_alike_may_share_a_norm() -> None:
    network = shared(nn.Tanh)
    assert find_batch_norm_mismatch(fit(network, steps=130)) == []
    x, y = digits()
    right = [(network.train(mode)(x).argmax(1) == y).float().mean().item() for mode in (True, False)]
    assert right[1] > right[0] - 0.01


def test_a_second_pass_that_leaves_the_statistics_alone_is_well() -> None:
    """As sharpness-aware minimisation takes it: the same layers once more, with a momentum of 0."""
    network = dense()
    norms = [layer for layer in network if isinstance(layer, nn.BatchNorm1d)]
    optimizer = torch.optim.Adam(network.parameters())

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        optimizer.zero_grad()
        for momentum in (0.1, 0.0):
            for norm in norms:
                norm.momentum = momentum
            F.cross_entropy(network(x), y).backward()
        optimizer.step()

    history = look(network, take_step, [optimizer], steps=130)
    assert {record.momentum for record in history[-1].normalizations} == {0.1, 0.0}
    assert find_batch_norm_mismatch(history) == []


def test_statistics_that_do_not_fit_although_they_had_time() -> None:
    """As when something else normalises, or writes them."""
    network = dense()
    history = fit(network, steps=130)
    history = [
        Snapshot.from_dict(
            {
                **(values := snapshot.to_dict()),
                "normalizations": [
                    {**norm, "variance_ratio": 4.0, "log_variance_gap": 1.5} for norm in values["normalizations"]
                ],
            }
        )
        for snapshot in history
    ]
    (found,) = find_batch_norm_mismatch(history)
    assert (found.severity, found.layer, found.step) == ("warning", "2", 50)
    assert find_batch_norm_mismatch(history[:6]) == []  # 1 / momentum has not passed three times


def test_a_network_left_in_eval_mode() -> None:
    (found,) = find_batch_norm_mismatch(in_eval_mode(dense()))
    assert (found.severity, found.layer, found.step) == ("warning", "2", 0)
    assert found.evidence["layers in eval mode"] == 2
    assert found.remedies[0].action == "train_mode"


def test_a_network_that_comes_back_from_validation_in_eval_mode() -> None:
    network = images()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        network.train(step < 30)
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()

    history = look(network, take_step, [optimizer], steps=200)
    (found,) = find_batch_norm_mismatch(history)
    assert (found.severity, found.step) == ("warning", 50)
    assert find_batch_norm_mismatch([snapshot for snapshot in history if snapshot.step < 50]) == []


def test_frozen_statistics_that_fitted_stay_well_wherever_the_weights_go() -> None:
    network = images()
    x, y = digits()
    fit(network, steps=150, data=(x[y < 5], y[y < 5]))
    tuned = in_eval_mode(copy.deepcopy(network), steps=110, data=(x[y >= 5], y[y >= 5] - 5))
    assert math.log(tuned[-1].normalizations[-1].variance_ratio) > 1.0  # they have gone far
    assert find_batch_norm_mismatch(tuned) == []


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_dropout_right_before_batch_norm(p: float) -> None:
    network = dense(dropout=p)
    history = fit(network, steps=100)
    (found,) = find_batch_norm_mismatch(history)
    assert (found.severity, found.layer) == ("warning", "2")
    x = network[0](digits()[0])
    shift = (F.dropout(x, p).var(0) / x.var(0)).mean().item()  # what it does to the variance
    claimed = found.evidence["training over evaluation variance, at least"]
    assert claimed == pytest.approx(1 / (1 - p))
    assert shift > 0.95 * claimed
    assert said(find_batch_norm_mismatch(fit(dense(dropout=0.1), steps=10))) == []


def test_useless_biases_are_one_information() -> None:
    history = fit(dense(bias=True), steps=30)
    (found,) = find_batch_norm_mismatch(history)
    assert (found.severity, found.layer) == ("info", "0")
    assert found.evidence["layers"] == "0, 4"
    assert [finding.rank for finding in find(history)] == [0]


def test_a_norm_that_two_domains_share_has_a_mixture() -> None:
    network = dense()
    optimizer = torch.optim.Adam(network.parameters())

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        optimizer.zero_grad()
        (F.cross_entropy(network(x), y) + F.cross_entropy(network(4 * x), y)).backward()
        optimizer.step()

    history = look(network, take_step, [optimizer], steps=110)
    assert len(history[-1].normalizations) == 4
    assert find_batch_norm_mismatch(history) == []


def test_histories_without_normalisations_are_none_of_its_business() -> None:
    values = fit(dense(), steps=3)[0].to_dict()
    del values["normalizations"]
    assert find_batch_norm_mismatch([Snapshot.from_dict(values)]) == []
