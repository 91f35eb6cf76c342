"""Outputs that do not fit their loss are named at the last layer; losses that are unusual and right are not."""

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
from lightning_tricks.diagnosis.history.loss_calls import loss_calls
from lightning_tricks.diagnosis.rules.output_mismatch import find_output_mismatch
from lightning_tricks.probes import LossRecord, Snapshot
from tests.diagnosis.custom import Loss, fit, said
from tests.diagnosis.trainings import deep, digits


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def net(*tail: nn.Module, outputs: int = 10, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Two hidden layers; the last linear layer is "4", what is put behind it "5"."""
    return nn.Sequential(*deep(activation, 2)[:-1], nn.Linear(64, outputs), *tail)


def one_hot(y: Tensor) -> Tensor:
    return F.one_hot(y, 10).float()


def standard(y: Tensor) -> Tensor:
    return (y.float() - 4.5) / 2.9


def bce(output: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output, one_hot(y))


class WeighBatch(nn.Module):
    """A softmax over the patterns that no loss takes for classes."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.softmax(0)


class Cosines(nn.Module):
    """Cosines of the patterns and of a weight for every class, times a number."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.body, self.head = deep(nn.ReLU, 1), nn.Parameter(torch.randn(10, 10))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.normalize(self.body(x)) @ F.normalize(self.head).T


FAULTS: dict[str, tuple[Callable[[], nn.Module], Loss, str, str]] = {
    "softmax before cross_entropy": (lambda: net(nn.Softmax(1)), F.cross_entropy, "critical", "4"),
    "softmax before the sigmoid loss": (lambda: net(nn.Softmax(1)), bce, "critical", "4"),
    "sigmoid before the sigmoid loss": (lambda: net(nn.Sigmoid()), bce, "critical", "5"),
    "sigmoid before cross_entropy": (lambda: net(nn.Sigmoid()), F.cross_entropy, "warning", "5"),
    "tanh before cross_entropy": (lambda: net(nn.Tanh()), F.cross_entropy, "warning", "5"),
    "relu before cross_entropy": (lambda: net(nn.ReLU()), F.cross_entropy, "warning", "5"),
    "gelu before the sigmoid loss": (lambda: net(nn.GELU()), bce, "warning", "5"),
    "logits in nll_loss": (net, F.nll_loss, "critical", "4"),
    "probabilities in nll_loss": (lambda: net(nn.Softmax(1)), F.nll_loss, "critical", "4"),
    "probabilities in kl_div": (
        lambda: net(nn.Softmax(1)),
        lambda output, y: F.kl_div(output, one_hot(y), reduction="batchmean"),
        "critical",
        "4",
    ),
    "[N, 1] against [N]": (
        lambda: net(outputs=1),
        lambda output, y: F.mse_loss(output, standard(y)),
        "critical",
        "4",
    ),
    "[N, 10] against [N, 1]": (net, lambda output, y: F.l1_loss(output, standard(y)[:, None]), "warning", "4"),
    "a single class to choose": (
        lambda: net(outputs=1),
        lambda output, y: F.cross_entropy(output, torch.zeros_like(y)),
        "critical",
        "4",
    ),
    "[N, 1] against [N], by hand": (
        lambda: net(outputs=1),
        lambda output, y: ((output - standard(y)) ** 2).mean(),
        "critical",
        "4",
    ),
    "softmax over the batch": (
        lambda: net(nn.Softmax(0)),
        lambda output, y: F.nll_loss((output + 1e-9).log(), y),
        "critical",
        "5",
    ),
    "cosines without a scale": (Cosines, F.cross_entropy, "warning", "body.2"),
    "negative targets behind relu": (
        lambda: net(nn.ReLU(), outputs=1),
        lambda output, y: F.mse_loss(output[:, 0], standard(y)),
        "warning",
        "5",
    ),
    "targets over 1 behind sigmoid": (
        lambda: net(nn.Sigmoid(), outputs=1),
        lambda output, y: F.smooth_l1_loss(output[:, 0], y.float()),
        "critical",
        "5",
    ),
    "raw targets": (
        lambda: net(outputs=1),
        lambda output, y: F.mse_loss(output[:, 0], 1000.0 + y.float()),
        "warning",
        "4",
    ),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_finding_at_the_end_of_the_network(name: str) -> None:
    make, loss, severity, layer = FAULTS[name]
    history = fit(make(), loss, steps=30)
    found = find_output_mismatch(history)
    assert said(found) == [(severity, layer)]
    assert found[0].step == 0
    assert found[0].explanation.count(". ") >= 1
    assert found[0].remedies
    stored = [Snapshot.from_dict(snapshot.to_dict()) for snapshot in history]
    assert said(find_output_mismatch(stored)) == said(found)


def capped(cap: float) -> Loss:
    return lambda output, y: F.cross_entropy(cap * torch.tanh(output / cap), y)


def of_two(output: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(output, (y > 4).long())


HEALTHY: dict[str, tuple[Callable[[], nn.Module], Loss]] = {
    "logits": (net, F.cross_entropy),
    "softmax over the classes": (lambda: net(nn.Softmax(1)), lambda o, y: F.nll_loss((o + 1e-9).log(), y)),
    "weights over the batch": (lambda: net(WeighBatch()), F.cross_entropy),
    "a scaled cosine": (lambda: Cosines(4.0), F.cross_entropy),
    "two classes": (lambda: net(outputs=2), of_two),
    "a background class": (lambda: net(outputs=11), F.cross_entropy),
    "one logit a class": (net, bce),
    "weights, smoothing": (net, lambda o, y: F.cross_entropy(o, y, torch.arange(1.0, 11.0) * 9, label_smoothing=0.1)),
    "soft targets": (net, lambda output, y: F.cross_entropy(output, 0.9 * one_hot(y) + 0.01)),
    "log-probabilities in nll_loss": (lambda: net(nn.LogSoftmax(1)), F.nll_loss),
    "distillation": (net, lambda o, y: F.kl_div(o.log_softmax(1), one_hot(y) * 0.9 + 0.01, reduction="batchmean")),
    "rare classes weigh more": (
        net,
        lambda output, y: F.binary_cross_entropy_with_logits(output, one_hot(y), pos_weight=torch.tensor(90.0)),
    ),
    "a soft cap": (net, capped(30.0)),
    "a lower soft cap": (lambda: net(activation=nn.GELU), capped(5.0)),
    "standardised targets": (lambda: net(outputs=1), lambda output, y: F.mse_loss(output[:, 0], standard(y))),
    "positive targets behind relu": (
        lambda: net(nn.ReLU(), outputs=1),
        lambda output, y: F.mse_loss(output[:, 0], 1.0 + y.float()),
    ),
    "a scaled sigmoid": (
        lambda: net(nn.Sigmoid(), outputs=1),
        lambda output, y: F.mse_loss(9.0 * output[:, 0], y.float()),
    ),
    "one label for a map": (
        lambda: net(nn.Unflatten(1, (1, 10))),
        lambda output, y: F.mse_loss(output, standard(y)[:, None, None].expand(-1, 1, 10)),
    ),
    "probabilities against one-hot vectors": (
        lambda: net(nn.Softmax(1)),
        lambda output, y: F.mse_loss(output, one_hot(y)),
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_unusual_and_right_losses_stay_silent_at_every_look(name: str) -> None:
    make, loss = HEALTHY[name]
    history = fit(make(), loss)
    for steps in range(1, len(history) + 1):
        assert said(find_output_mismatch(history[:steps])) == []


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_evidence_is_what_softmax_makes_of_the_loss(smoothing: float) -> None:
    """With probabilities for logits the best loss is that of a one-hot vector; more, if the targets are smoothed."""
    loss = nn.CrossEntropyLoss(label_smoothing=smoothing)
    (found,) = find_output_mismatch(fit(net(nn.Softmax(1)), loss, steps=3))
    best = loss(one_hot(torch.tensor([3])), torch.tensor([3])).item()
    assert f"{best:.2f}" in found.explanation
    assert found.evidence["reachable"] == pytest.approx(best)


def test_log_probabilities_in_cross_entropy_are_information() -> None:
    (found,) = find_output_mismatch(fit(net(nn.LogSoftmax(1)), steps=10))
    assert (found.severity, found.layer) == ("info", "4")


def test_a_loss_that_begins_far_above_chance_is_named_at_once() -> None:
    network = net()
    nn.init.normal_(network[4].weight, std=60.0)  # type: ignore[arg-type]
    history = fit(network)
    (found,) = find_output_mismatch(history[:1])
    assert (found.severity, found.layer, found.step) == ("warning", "4", 0)
    assert found.evidence["initial loss"] == pytest.approx(history[0].loss, rel=1e-4)
    assert found.evidence["loss of a uniform guess"] == pytest.approx(math.log(10))
    resumed = fit(network)[1:]
    assert find_output_mismatch(resumed) == []


def test_a_fine_tuned_network_is_sure_and_wrong_and_well() -> None:
    network, (x, y) = net(), digits()
    fit(network, steps=200)
    history = fit(network, data=(x, (y + 1) % 10))
    assert history[0].losses[0].value > 1.5 * math.log(10)
    assert find_output_mismatch(history) == []


def test_a_rectified_map_that_is_pooled_is_a_known_architecture() -> None:
    pooled = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 10, 1), nn.ReLU(), nn.AvgPool2d(6)
    )
    assert find_output_mismatch(fit(nn.Sequential(pooled, nn.Flatten()))) == []


def test_calls_are_followed_by_their_names() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.a, self.b = deep(nn.ReLU, 1)[:-1], nn.Linear(64, 10), nn.Linear(64, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.trunk(x)
            return torch.cat([self.a(x).softmax(1), self.b(x)], 1)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output[:, :10], y) + F.mse_loss(output[:, 10], standard(y))

    history = fit(Both(), loss, steps=10)
    calls = loss_calls(history)
    assert [one.latest.function for one in calls] == ["cross_entropy", "mse_loss"]
    assert calls[0].pooled.patterns == 64 * len(history)
    assert [finding.severity for finding in find_output_mismatch(history)] == ["critical"]


def distance(outputs: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(outputs, one_hot(y))


def test_a_softmax_by_its_distance_from_the_classes() -> None:
    """Named where its small gradient holds the training back, with a loss that does better at the same rate."""
    network = deep(nn.ReLU, 2)
    start = copy.deepcopy(network)
    with_softmax = nn.Sequential(network, nn.Softmax(1))
    history = fit(with_softmax, distance, optimizer=torch.optim.SGD(network.parameters(), 0.1), steps=130)
    (found, *_) = find(history)
    assert (found.problem, found.severity) == ("output_mismatch", "warning")
    assert [remedy.action for remedy in found.remedies] == ["change_loss", "raise_learning_rate"]
    other = fit(start, optimizer=torch.optim.SGD(start.parameters(), 0.1), steps=130)
    assert other[-1].loss < 0.7 * other[0].loss
    assert history[-1].loss > 0.95 * history[0].loss


@pytest.mark.parametrize("optimizer", [lambda p: torch.optim.SGD(p, 5.0), lambda p: torch.optim.Adam(p, 1e-3)])
def test_a_softmax_by_its_distance_may_learn_well(optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    network = nn.Sequential(deep(nn.ReLU, 2), nn.Softmax(1))
    history = fit(network, distance, optimizer=optimizer(network.parameters()), steps=130)
    assert history[-1].loss < 0.7 * history[0].loss
    assert find_output_mismatch(history) == []


def test_the_rate_stays_the_cause_where_the_size_of_a_gradient_does_not_matter() -> None:
    network = nn.Sequential(deep(nn.ReLU, 2), nn.Softmax(1))
    history = fit(network, distance, optimizer=torch.optim.Adam(network.parameters(), 1e-6), steps=130)
    assert [finding.problem for finding in find(history) if finding.rank] == ["learning_rate_too_low"]


def test_histories_without_losses_are_none_of_its_business() -> None:
    values = fit(net(nn.Softmax(1)), steps=3)[0].to_dict()
    del values["losses"]
    assert find_output_mismatch([Snapshot.from_dict(values)]) == []


@pytest.mark.parametrize(("low", "named"), [(-2.0, False), (0.0, True)])
def test_outputs_whose_mean_is_that_of_probabilities_by_chance(low: float, named: bool) -> None:
    record = LossRecord("loss", "binary_cross_entropy_with_logits", patterns=64, outputs=10, input_mean=0.1)
    record = dataclasses.replace(record, input_min=low, input_max=0.4)
    assert bool(find_output_mismatch([Snapshot(losses=(record,))])) is named
