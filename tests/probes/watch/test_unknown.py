"""Nonlinearities that no registry knows, between two weighted operations: told from input and output, or listed."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.probes import probe
from lightning_tricks.verify import verify

UNKNOWN = [
    ("clamp", lambda x: x.clamp(min=0)),
    ("clamp", lambda x: torch.clamp(x, 0, 6)),
    ("clamp", lambda x: x.clamp_(min=0)),
    ("maximum", lambda x: torch.maximum(x, torch.zeros(()))),
    ("where", lambda x: torch.where(x > 0, x, 0.1 * x)),
    ("where", lambda x: torch.where(x > 0, x, x.exp() - 1)),
    ("mul", lambda x: x * (x > 0)),
    ("mul", lambda x: x * (x > 0).float()),
    ("mul", lambda x: x * x),
    ("sin", torch.sin),
    ("div", lambda x: x / (1 + (-x).exp())),
    ("rdiv", lambda x: 1 / (1 + x.abs())),
    ("mul_2", lambda x: 0.5 * (x.clamp(min=0) * 3)),
    ("add", lambda x: x.clamp(min=0) + 0.01 * x.clamp(max=0)),
    ("add", lambda x: x + x.sin()),
    ("mul", lambda x: x * torch.exp(-x)),
]


class Between(nn.Module):
    def __init__(self, g):
        super().__init__()
        self.one, self.two, self.g = nn.Linear(6, 8), nn.Linear(8, 8), g

    def forward(self, x):
        return self.two(F.dropout(self.g(self.one(x)), 0.1))


@pytest.mark.parametrize(("name", "g"), UNKNOWN)
def test_a_nonlinearity_that_nobody_knows_is_told_from_its_input_and_output(name, g):
    model, x = Between(g), torch.randn(50, 6)
    with probe(model) as p:
        model(x).square().mean().backward()
    snapshot = p.snapshot()
    (record,) = snapshot.activations
    assert (record.name, record.function) == (name, "unknown")
    assert dict(snapshot.not_seen) == {}
    a = model.one(x).detach()
    out = g(a.clone())
    wanted = [torch.corrcoef(torch.stack((a[:, i], out[:, i])))[0, 1] ** 2 for i in range(8)]
    assert record.linearity == pytest.approx(float(torch.stack(wanted).mean()), rel=1e-4)
    assert record.mean == pytest.approx(float(a.mean()), abs=1e-5)
    assert record.error_signal == pytest.approx(snapshot.weighted[0].error_signal)
    assert snapshot.weighted[1].follows is None
    assert snapshot.weighted[0].order < record.order < snapshot.weighted[1].order
    assert math.isnan(record.transmission)
    assert math.isnan(record.saturation)


@pytest.mark.parametrize(
    "g",
    [lambda x: x / x.norm(dim=1, keepdim=True), lambda x: torch.maximum(x, x.flip(1) * 2),
     lambda x: x.clamp(min=0).transpose(0, 1).contiguous().transpose(0, 1)],
)  # fmt: skip
def test_what_depends_on_more_is_listed(g):
    model = Between(g)
    with probe(model) as p:
        model(torch.randn(8, 6)).square().mean().backward()
    assert p.snapshot().activations == ()
    (reason,) = p.snapshot().not_seen.values()
    assert "no known activation, between two weighted operations (before two)" in reason


def test_it_is_told_in_images_and_before_what_follows_and_once_a_step():
    class Images(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.norm, self.two = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3)
            self.left, self.right = nn.Linear(12, 2), nn.Linear(12, 2)

        def forward(self, x):
            x = F.max_pool2d(self.norm(self.one(x)).clamp(min=0), 2)
            x = self.two(x).clamp(min=0).flatten(1)
            return self.left(x) + self.right(x)

    with probe(Images()) as p:
        for _ in range(2):  # an accumulation
            p._observer.modules.new_batch()
            Images.forward(p._model, torch.randn(4, 2, 10, 10)).square().mean().backward()
    snapshot = p.snapshot()
    assert [(r.name, r.function, r.patterns) for r in snapshot.activations] == [
        ("clamp", "unknown", 512),
        ("clamp_2", "unknown", 32),
    ]
    assert dict(snapshot.not_seen) == {}


@pytest.mark.parametrize("scaled", [lambda x: 0.1 * x, lambda x: x / 3, lambda x: x.clamp(-9, 9), lambda x: x])
def test_the_layer_of_a_loss_is_a_layer(scaled):
    layer, x = nn.Linear(6, 3), torch.randn(9, 6)
    with probe(layer) as p:
        F.cross_entropy(scaled(layer(x)), torch.arange(9) % 3).backward()
    (record,) = p.snapshot().losses
    assert record.weighted == "linear"
    assert not p.snapshot().activations
    assert dict(p.snapshot().not_seen) == {}


def test_a_step_is_the_same_with_it():
    model = Between(lambda x: x.clamp_(min=0) + x.sin())
    assert verify(model, (torch.randn(9, 6), torch.randn(9, 8)), F.mse_loss).identical


@pytest.mark.parametrize(
    "g",
    [F.relu, lambda x: x * 2, lambda x: x / 2, lambda x: x * torch.bernoulli(torch.full_like(x, 0.5)),
     lambda x: x * torch.sigmoid(x), lambda x: x + x.clamp(max=0),
     lambda x: x.square().mean(1, keepdim=True).expand(5, 8)],
)  # fmt: skip
def test_what_is_known_or_linear_is_not(g):
    model = Between(g)
    with probe(model) as p:
        (model(torch.randn(5, 6)).clamp(-9, 9).exp() + 1).log().mean().backward()  # on the way to a loss it is none
    assert set(p.snapshot().not_seen) <= {"square"}
