"""A doctor takes batches and models of every kind, and names what is not finite in them."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt
from tests.callbacks.test_training_doctor import doctor, healthy, network
from tests.callbacks.trainings import Classifier, batches, fit


@dataclasses.dataclass
class Pair:
    x: torch.Tensor
    y: torch.Tensor


class Anything(Classifier):
    """Takes tuples, dicts and dataclasses, of floats or indices."""

    def loss(self, batch):
        if isinstance(batch, dict):
            batch = batch["x"], batch["y"]
        elif isinstance(batch, Pair):
            batch = batch.x, batch.y
        return F.cross_entropy(self.net(batch[0]), batch[1])


def embedded():
    return nn.Sequential(nn.Embedding(9, 6), nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))


def partly_frozen():
    net = network()
    net[0].requires_grad_(False)
    net.register_parameter("unused", nn.Parameter(torch.zeros(2)))
    return net


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.head = nn.Linear(4, 4, dtype=torch.complex64), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.mix(torch.fft.rfft(x)).abs())


def indices():
    return [(torch.randint(9, (8, 2)), torch.randint(3, (8,))) for _ in range(4)]


KINDS = {
    "tuples": (network, lambda: batches(4)),
    "dicts": (network, lambda: [{"x": x, "y": y} for x, y in batches(4)]),
    "dataclasses": (network, lambda: [Pair(x, y) for x, y in batches(4)]),
    "batches of one": (network, lambda: batches(4, size=1)),
    "an empty batch": (network, lambda: [*batches(2), *batches(1, size=0), *batches(1)]),
    "integers": (embedded, indices),
    "frozen and unused parameters": (partly_frozen, lambda: batches(4)),
    "no activation": (lambda: nn.Linear(6, 3), lambda: batches(4)),
    "no hidden layer seen": (lambda: torch.jit.trace(network(), torch.ones(2, 6)), lambda: batches(4)),
    "complex numbers": (Complex, lambda: batches(4)),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*jit.trace")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_batch_and_model(kind):
    make, data = KINDS[kind]
    callback = doctor(on_problem="log")
    trainer = fit(Anything(make()), [callback, lt.ActivationMonitor(every_n_steps=1)], data())
    assert trainer.global_step == 4
    assert [snapshot.step for snapshot in callback.history] == [0, 1, 2, 3]
    assert all(finding.problem != "non_finite" for finding in callback.diagnosis.findings) or "empty" in kind
    assert str(callback.diagnosis)
    if kind == "no hidden layer seen":
        assert any("scripted" in reason for reason in callback.history[0].not_seen.values())
    if kind == "complex numbers":
        assert "complex" in callback.history[0].not_seen["net.mix"]
    if kind == "integers":
        assert [record.operation for record in callback.history[0].weighted] == ["embedding", "linear", "linear"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_first_layer_that_is_not_finite_is_named(value, precision):
    data = batches(4)
    data[1][0][3, 2] = value
    callback = doctor(on_problem="log")
    trainer = fit(healthy(), [callback], data, precision=precision)
    first = callback.diagnosis.findings[0]
    assert trainer.global_step == 4
    assert (first.problem, first.layer, first.severity, first.step) == ("non_finite", "net.0", "critical", 1)
    assert first.evidence["tensor"] == "input"


def test_not_finite_inside_the_network():
    class Explodes(nn.Module):
        def forward(self, x):
            return x * 1e30 * 1e30

    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), Explodes(), nn.Linear(8, 3))
    callback = doctor(on_problem="log")
    fit(Classifier(net), [callback])
    first = callback.diagnosis.findings[0]
    assert (first.problem, first.layer, first.step) == ("non_finite", "net.3", 0)


def test_a_part_of_a_network_has_no_input_layer():
    """What a monitor of some layers kept, or a probe: their first layer reads no features."""
    big = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))
    nn.init.constant_(big[0].bias, 50.0)
    monitor = lt.ActivationMonitor(layers=["net.2", "net.3", "net.4"], every_n_steps=1)
    fit(Classifier(big), [monitor], batches(6))
    assert all(snapshot.partial for snapshot in monitor.history)
    assert "unnormalized_input" not in {finding.problem for finding in lt.diagnose(monitor.history).findings}
    with lt.probe(big, layers="2") as p:
        F.cross_entropy(big(torch.randn(32, 6)), torch.randint(3, (32,))).backward()
    assert p.snapshot().partial
    assert not lt.Snapshot().partial
