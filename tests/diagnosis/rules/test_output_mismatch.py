"""Outputs that do not fit their loss are named at the last layer; losses that are unusual and right are not."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.diagnosis import find
from lightning_tricks.diagnosis.history.loss_calls import loss_calls
from lightning_tricks.diagnosis.rules.output_mismatch import find_output_mismatch
from lightning_tricks.probes import Snapshot
from tests.diagnosis.custom import Loss, fit, look, said
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


def test_the_evidence_is_what_softmax_makes_of_the_loss() -> None:
    """With probabilities for logits the best loss is that of a one-hot vector."""
    (found,) = find_output_mismatch(fit(net(nn.Softmax(1)), steps=3))
    best = F.cross_entropy(one_hot(torch.tensor([3])), torch.tensor([3])).item()
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


def test_outputs_that_no_target_names_need_many_targets() -> None:
    history = fit(net(outputs=100), steps=130)
    (found,) = find_output_mismatch(history)
    assert (found.severity, found.layer) == ("warning", "4")
    assert found.evidence["largest class in a target"] == 9
    assert said(find_output_mismatch(history[:5])) == []


def test_targets_of_one_class() -> None:
    x, y = digits()
    (found,) = find_output_mismatch(fit(net(), data=(x, torch.full_like(y, 3))))
    assert (found.severity, found.layer) == ("warning", "4")
    assert "class 3" in found.explanation


def test_a_contrastive_loss_has_its_positive_always_at_the_same_place() -> None:
    class Contrast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = net(outputs=32)
            self.queue = F.normalize(torch.randn(96, 32), dim=1)

        def forward(self, x: Tensor) -> Tensor:
            query = F.normalize(self.encoder(x), dim=1)
            key = F.normalize(self.encoder(x + 0.1), dim=1).detach()
            return torch.cat([(query * key).sum(1, keepdim=True), query @ self.queue.T], 1) / 0.2

    history = fit(Contrast(), lambda output, y: F.cross_entropy(output, torch.zeros_like(y)), steps=130)
    assert find_output_mismatch(history) == []


def test_segmentation_judges_images_not_pixels() -> None:
    network = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 21, 1))

    def loss(output: Tensor, y: Tensor) -> Tensor:
        target = y[:, None, None].repeat(1, 8, 8) // 2
        target[:, 0] = -100
        return F.cross_entropy(output, target)

    history = fit(network, loss, steps=110, batch=4)
    assert sum(snapshot.losses[0].patterns for snapshot in history) > 500
    assert find_output_mismatch(history) == []


MIXED_AXES: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor], str]] = {
    "a map": (nn.Conv2d(8, 5, 1), lambda out: out.reshape(-1, 5), "out.permute(0, 2, 3, 1).reshape(-1, 5)"),
    "its log-softmax": (nn.Conv2d(8, 5, 1), lambda out: out.view(-1, 5).log_softmax(1), "out.permute(0, 2, 3, 1)"),
    "a map as a series": (nn.Conv2d(8, 5, 1), lambda out: out.view(len(out), 64, 5).transpose(1, 2), "out.flatten(2)"),
    "a series": (
        nn.Sequential(nn.Flatten(2), nn.Linear(64, 5)),
        lambda out: out.view(len(out), 5, 8),
        "out.transpose(1, 2)",
    ),
}


def of_positions(view: Callable[[Tensor], Tensor]) -> Loss:
    """Every position of an image is to be told the image's class."""

    def loss(output: Tensor, y: Tensor) -> Tensor:
        viewed = view(output)
        positions = viewed[0, 0].numel() if viewed.dim() > 2 else len(viewed) // len(y)
        target = (y // 2)[:, None].repeat(1, positions)
        return F.cross_entropy(viewed, target if viewed.dim() == 3 else target.flatten())

    return loss


@pytest.mark.parametrize("name", MIXED_AXES)
def test_a_view_in_place_of_a_permutation_is_named_with_the_line_to_write(name: str) -> None:
    head, view, line = MIXED_AXES[name]
    network = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), head)
    history = fit(network, of_positions(view), steps=1, batch=4)
    (found,) = find_output_mismatch(history)
    assert (found.severity, found.layer) == ("warning", history[0].weighted[-1].name)
    assert line in found.remedies[0].text
    assert found.decided_by[0].holds


RIGHT_AXES: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {
    "a map": (nn.Conv2d(8, 5, 1), lambda out: out.permute(0, 2, 3, 1).reshape(-1, 5)),
    "a map as a series": (nn.Conv2d(8, 5, 1), lambda out: out.flatten(2)),
    "a series": (nn.Sequential(nn.Flatten(2), nn.Linear(64, 5)), lambda out: out.view(-1, 5)),
    "a series turned": (nn.Sequential(nn.Flatten(2), nn.Linear(64, 5)), lambda out: out.transpose(1, 2)),
    "several predictions a position": (
        nn.Conv2d(8, 10, 1),
        lambda out: out.view(len(out), 2, 5, -1).transpose(2, 3).reshape(-1, 5),
    ),
}


@pytest.mark.parametrize("name", RIGHT_AXES)
def test_classes_that_stay_the_units_are_silent(name: str) -> None:
    head, view = RIGHT_AXES[name]
    network = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), head)
    assert find_output_mismatch(fit(network, of_positions(view), steps=1, batch=4)) == []


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_a_gradient_explodes_because_weights_grew_to_large_targets(size: float) -> None:
    """Two targets, one far larger than the other: the outputs come to it, and the product of the weights with them."""
    x = torch.randn(500, 4)
    y = torch.stack((size * torch.sin(2.0 * x[:, 0]) + size * x[:, 1], x[:, 2]), 1)
    network = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    history = fit(network, F.mse_loss, optimizer=optimizer, steps=301, every=50, batch=32, data=(x, y))
    found = [finding for finding in find(history) if finding.rank]
    assert [finding.problem for finding in found] == (["output_mismatch"] if size > 1.0 else [])
    if found:
        assert "exploding_gradient" in [finding.problem for finding in found[0].consequences]
        assert "y.mean(0)" in found[0].remedies[0].text


def test_a_rectified_map_that_is_pooled_is_a_known_architecture() -> None:
    pooled = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 10, 1), nn.ReLU(), nn.AvgPool2d(6)
    )
    assert find_output_mismatch(fit(nn.Sequential(pooled, nn.Flatten()))) == []


def test_both_losses_of_a_discriminator_have_constant_targets() -> None:
    generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64))
    model = nn.ModuleDict({"g": generator, "d": nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))})
    optimizers = [torch.optim.Adam(model[name].parameters(), 2e-4) for name in ("d", "g")]
    logits = F.binary_cross_entropy_with_logits

    def take_step(x: Tensor, y: Tensor, step: int) -> None:
        made = model["g"](torch.randn(len(x), 8))
        real, false = torch.ones(len(x), 1), torch.zeros(len(x), 1)
        optimizers[0].zero_grad()
        (logits(model["d"](x), real) + logits(model["d"](made.detach()), false)).backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        logits(model["d"](made), real).backward()
        optimizers[1].step()

    history = look(model, take_step, optimizers)
    assert len(history[-1].losses) == 3
    assert find_output_mismatch(history) == []


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


def test_constant_targets_are_judged_too() -> None:
    """Zeros, which a guess meets exactly, and a constant that a sigmoid cannot give."""
    x, _ = digits()
    loud = deep(nn.ReLU, 1)
    with torch.no_grad():
        loud[-1].weight.mul_(300.0)  # type: ignore[operator,union-attr]
    zeros, threes = (torch.full((len(x), 10), value) for value in (0.0, 3.0))
    mse = nn.functional.mse_loss
    assert find_output_mismatch(fit(loud, mse, steps=3, data=(x, zeros))) == []
    (found,) = find_output_mismatch(fit(nn.Sequential(deep(nn.ReLU, 1), nn.Sigmoid()), mse, data=(x, threes)))
    assert (found.layer, found.severity) == ("1", "critical")
