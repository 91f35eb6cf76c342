"""Equal answers to all patterns are named where patterns become equal; constants that are right are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.diagnosis import diagnose
from lightning_tricks.diagnosis.rules.collapsed_output import find_collapsed_output
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.preflight import Place, PreflightRecord
from tests.diagnosis.custom import Loss, fit, look, said
from tests.diagnosis.trainings import deep


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def numbers(patterns: int = 256) -> tuple[Tensor, Tensor]:
    x = torch.randn(patterns, 4, generator=torch.Generator().manual_seed(0))
    return x, (2.0 + x.sum(1)).clamp_min(0.1)


def with_bias(network: nn.Sequential, layer: int, bias: float) -> nn.Sequential:
    nn.init.normal_(network[layer].weight, std=1e-3)  # type: ignore[arg-type]
    nn.init.constant_(network[layer].bias, bias)  # type: ignore[arg-type]
    return network


def rectified(bias: float = -1.0) -> nn.Sequential:
    return with_bias(nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1), nn.ReLU()), 2, bias)


def hidden_dead() -> nn.Sequential:
    return with_bias(nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 1)), 2, -1.0)


class Rectified(nn.Module):
    """An LSTM whose last layer is followed by a ReLU that begins under zero."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head, self.act = nn.LSTM(1, 8, batch_first=True), nn.Linear(8, 1), nn.ReLU()
        nn.init.constant_(self.head.bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.head(self.lstm(x[..., None])[0][:, -1]))


def mse(output: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(output[:, 0], y)


def by_hand(output: Tensor, y: Tensor) -> Tensor:
    return ((output[:, 0] - y) ** 2).mean()


def to_one(output: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy(output[:, 0], (y > 2).float())


def one_unit() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1), nn.Softmax(1))


class Lost(nn.Module):
    """Something that is no layer keeps nothing of the pattern on its way to the head."""

    def __init__(self, lose: Callable[[Tensor], Tensor], dropout: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(4, 8), nn.Tanh()), nn.Linear(8, 1)
        self.lose, self.drop = lose, dropout or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.lose(self.body(x))))  # type: ignore[no-any-return]


FAULTS: dict[str, tuple[Callable[[], nn.Module], Loss, str]] = {
    "relu behind the last layer": (rectified, mse, "3"),
    "relu behind the last layer, loss by hand": (rectified, by_hand, "3"),
    "relu behind an lstm": (Rectified, mse, "act"),
    "a hidden layer dead": (hidden_dead, mse, "3"),
    "softmax over one unit": (one_unit, to_one, "3"),
    "log_softmax over one unit": (lambda: nn.Sequential(nn.Linear(4, 1), nn.LogSoftmax(1)), mse, "1"),
    "times nothing": (lambda: Lost(lambda x: 0.0 * x), mse, "head"),
    "the first pattern for all": (lambda: Lost(lambda x: x[:1].expand_as(x)), mse, "head"),
    "everything dropped": (lambda: Lost(lambda x: x, nn.Dropout(1.0)), mse, "drop"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_the_place_is_where_patterns_become_equal(name: str) -> None:
    make, loss, layer = FAULTS[name]
    history = fit(make(), loss, data=numbers(), steps=60, every=10)
    found = find_collapsed_output(history)
    assert said(found) == [("critical", layer)]
    stored = [Snapshot.from_dict(snapshot.to_dict()) for snapshot in history]
    assert said(find_collapsed_output(stored)) == said(found)
    assert not diagnose(history).healthy


def test_remedies_name_the_line() -> None:
    (found,) = find_collapsed_output(fit(rectified(), mse, data=numbers()))
    assert "relu behind the last layer" in found.remedies[0].text
    assert "Every unit there is zero for every pattern" in found.explanation
    make, loss, _ = FAULTS["softmax over one unit"]
    (found,) = find_collapsed_output(fit(make(), loss, data=numbers()))
    assert "nn.Sigmoid() in place of nn.Softmax(dim=1)" in found.remedies[0].text
    assert "[64, 1]" in found.explanation
    assert diagnose(fit(make(), loss, data=numbers())).findings[0].problem == "collapsed_output"


def test_of_classes_their_number_is_told_and_no_mean() -> None:
    x = numbers()[0]
    network = with_bias(nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3), nn.ReLU()), 2, -1.0)
    (found,) = find_collapsed_output(fit(network, F.cross_entropy, data=(x, x[:, :3].argmax(1))))
    assert found.evidence["classes among the targets"] == 3
    assert "target mean" not in found.evidence
    (other,) = find_collapsed_output(fit(rectified(), mse, data=numbers()))
    assert other.evidence["target mean"] > 1.0


def test_what_is_no_layer_is_named_by_the_layers_around_it() -> None:
    (found,) = find_collapsed_output(fit(Lost(lambda x: 0.0 * x), mse, data=numbers(), steps=60, every=10))
    assert "between body.1 and head" in found.remedies[0].text
    history = fit(Lost(lambda x: x, nn.Dropout(1.0)), mse, data=numbers(), steps=60, every=10)
    (found,) = find_collapsed_output(history)
    assert "in place of p=1 at drop" in found.remedies[0].text
    assert [root.problem for root in diagnose(history).findings if root.rank] == ["collapsed_output"]


def test_what_mixes_the_patterns_is_the_cause() -> None:
    history = fit(Lost(lambda x: x.mean(0, keepdim=True).expand_as(x)), mse, data=numbers(), steps=60, every=10)
    assert diagnose(history).findings[0].problem == "collapsed_output"
    mixed = Place("lose", "mean", "reduction", "", "", (64, 8), (1, 8), 0, None, 0)
    record = PreflightRecord("", 64, 0.0, 0.3, 0.0, mixed, collated=True)
    history = [dataclasses.replace(history[0], preflight=record), *history[1:]]
    (cause,) = (finding for finding in diagnose(history).findings if finding.rank)
    assert cause.problem == "batch_mixing"
    assert "collapsed_output" in {finding.problem for finding in cause.consequences}


class Parallel(nn.Module):
    """What does not learn, a teacher as it were, looks at the input; what learns gives a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher, self.head = nn.Linear(4, 8).requires_grad_(False), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(0.0 * self.teacher(x) + 1.0)  # type: ignore[no-any-return]


def test_layers_that_the_loss_does_not_depend_on_are_no_place_before() -> None:
    assert not find_collapsed_output(fit(Parallel(), mse, data=numbers(), steps=60, every=10))


def test_half_precision_rounds_more() -> None:
    history = fit(
        hidden_dead().bfloat16(), lambda o, y: mse(o.float(), y), data=(numbers()[0].bfloat16(), numbers()[1])
    )
    assert said(find_collapsed_output(history)) == [("critical", "3")]


class Attention(nn.Module):
    """Attends to a sequence of ``length``, then to its output."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length, self.take, self.attend = length, nn.Linear(4, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        taken = self.take(x)[:, None].expand(-1, self.length, -1)
        return self.head(self.attend(taken, taken, taken)[0].mean(1))


class Pooled(nn.Module):
    """Weighs the positions of a sequence by a softmax over ``axis`` of their scores."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.take, self.score, self.head, self.axis = nn.Linear(1, 8), nn.Linear(8, 1), nn.Linear(8, 1), axis

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.take(x[..., None]).tanh()
        return self.head((self.score(hidden).softmax(self.axis) * hidden).sum(1))


def test_weights_over_a_single_unit_are_named_with_the_axis() -> None:
    (found,) = find_collapsed_output(fit(Pooled(-1), mse, data=numbers()))
    assert (found.severity, found.layer) == ("warning", "score")
    assert "dim=1" in found.remedies[0].text


class Residual(nn.Module):
    """A branch that begins, and with ``stays`` remains, at zero."""

    def __init__(self, stays: bool) -> None:
        super().__init__()
        self.take, self.dead, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        nn.init.zeros_(self.dead.weight)
        nn.init.constant_(self.dead.bias, -5.0 if stays else 0.1)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.take(x).tanh()
        return self.head(hidden + self.gate * self.dead(hidden).relu())


class Experts(nn.Module):
    """A mixture whose number of experts was set to one."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.expert = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x).softmax(1) * self.expert(x)


def zero_head() -> nn.Sequential:
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    nn.init.zeros_(network[2].weight)  # type: ignore[arg-type]
    nn.init.zeros_(network[2].bias)  # type: ignore[arg-type]
    return network


def hinge(output: Tensor, y: Tensor) -> Tensor:
    return F.relu(1.0 - 1e3 * (y.sub(2).sign() * (output[:, 0] + 1e3 * y.sub(2).sign()))).mean()


def all_real(output: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy(torch.sigmoid(output[:, 0] * 0 + output[:, 0].abs() + 30.0), torch.ones_like(y))


class Unconditional(nn.Module):
    """The scale that the loss takes depends on no input."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.log_std = nn.Linear(4, 1), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x)[:, 0], self.log_std.expand(len(x))


def normal(output: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
    mean, log_std = output
    return F.gaussian_nll_loss(mean, y, (2 * log_std).exp()) + 1e-3 * F.mse_loss(log_std, y)


HEALTHY: dict[str, tuple[Callable[[], nn.Module], Loss]] = {
    "zero head": (zero_head, mse),
    "zero head, loss by hand": (zero_head, by_hand),
    "attention over one": (lambda: Attention(1), mse),
    "attention": (lambda: Attention(5), mse),
    "attention pooling": (lambda: Pooled(1), mse),
    "one expert": (Experts, mse),
    "rezero": (lambda: Residual(False), mse),
    "a dead branch beside a live one": (lambda: Residual(True), mse),
    "relu over positive outputs": (lambda: rectified(1.0), mse),
    "prelu": (lambda: nn.Sequential(nn.Linear(4, 8), nn.PReLU(), nn.Linear(8, 1), nn.PReLU()), mse),
    "a hinge that is satisfied": (zero_head, hinge),
    "all targets one, outputs at their bound": (lambda: nn.Linear(4, 1), all_real),
    "a scale of no input": (Unconditional, normal),  # type: ignore[dict-item]
    "softmax of two": (lambda: nn.Sequential(nn.Linear(4, 2), nn.Softmax(1)), to_one),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_constants_that_are_right_are_silent(name: str) -> None:
    make, loss = HEALTHY[name]
    assert not find_collapsed_output(fit(make(), loss, data=numbers(), steps=60, every=10))


def test_equal_inputs_are_no_fault() -> None:
    x, y = numbers()
    history = fit(
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)), mse, data=(torch.ones_like(x), y), every=10
    )
    assert not find_collapsed_output(history)


def test_images_that_are_all_the_same_are_no_fault_of_a_layer() -> None:
    """Within an image they vary."""
    torch.manual_seed(0)
    x, (_, y) = torch.randn(1, 4, 6, 6).expand(256, 4, 6, 6).contiguous(), numbers()
    make = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 1))
    history = fit(make, mse, data=(x, y), steps=60, every=10, preflight=True)
    assert not find_collapsed_output(history)
    (found,) = (finding for finding in diagnose(history).findings if finding.rank)
    assert (found.problem, found.layer) == ("unnormalized_input", "0")
    assert found.evidence["patterns looked at"] == 64


def test_one_pattern_a_step_is_no_fault() -> None:
    network = deep(nn.ReLU, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor, _: int) -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()

    assert not find_collapsed_output(look(network, step, [optimizer], steps=40, every=10, batch=1))


def test_old_histories_say_nothing_of_it() -> None:
    history = fit(hidden_dead(), mse, data=numbers())
    stored = [snapshot.to_dict() for snapshot in history]
    for snapshot in stored:
        for kind in ("activations", "weighted", "losses"):
            for record in snapshot[kind]:
                for name in ("variation", "input_variation", "resolution", "input_resolution"):
                    record.pop(name, None)
    assert not find_collapsed_output([Snapshot.from_dict(snapshot) for snapshot in stored])
