"""Histories of small real trainings, and findings as the rules would write them."""

import pytest
import torch
from torch import nn

from lightning_tricks.diagnosis import Finding, Remedy
from lightning_tricks.probes import Probe


def train(model, steps=(0, 1, 2), features=8, *, lr=0.1, spoil=None):
    """Probe so many steps of a training on random labels."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(1)
    history = []
    for step in steps:
        x, y = torch.randn(32, features, generator=generator), torch.randint(0, 4, (32,), generator=generator)
        if spoil == step:
            x[0, 0] = float("nan")
        probe = Probe(model, optimizer, step=step)
        with probe:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        history.append(probe.snapshot())
    return history


def mlp(depth, activation, width=8):
    torch.manual_seed(0)
    layers = [module for _ in range(depth) for module in (nn.Linear(width, width), activation())]
    return nn.Sequential(*layers, nn.Linear(width, 4))


@pytest.fixture(scope="session")
def sigmoids():
    return train(mlp(6, nn.Sigmoid))


@pytest.fixture(scope="session")
def rectifiers():
    return train(mlp(3, nn.ReLU), steps=(0, 1, 2, 4, 8))


@pytest.fixture(scope="session")
def deep():
    return train(mlp(100, nn.Tanh), steps=(0, 1))


@pytest.fixture(scope="session")
def linear():
    return train(mlp(0, nn.Tanh))


@pytest.fixture(scope="session")
def spoilt():
    return train(mlp(3, nn.Tanh), spoil=1)


REMEDIES = (
    Remedy("initialize", "start with weights for this activation: lt.init.lecun_normal_(layer.weight)", "0"),
    Remedy("swap_activation", "use self-normalising units: lt.nn.SELULinear (SELU with LeCun initialisation)"),
)


@pytest.fixture
def cause():
    """A cause with two findings that follow from it, one of them from the other."""
    linear = Finding("linearity", "5", "warning", 1, {"linearity": 0.99987})
    vanishing = Finding(
        "vanishing_gradient", "3", "critical", 2, {"slope": -0.514, "loss": float("nan")}, "", (), (linear,)
    )
    return Finding(
        "poor_initialization",
        "2",
        "warning",
        0,
        {"pre-activation std": 0.147153, "saturation": 0.25, "weighted layer": None},
        "The weights are small. The signal shrinks from layer to layer.",
        REMEDIES,
        (vanishing,),
    )


@pytest.fixture
def second():
    return Finding(
        "unnormalized_input", None, "warning", 0, {"input mean": 4.9775}, "The input has a mean of 5.", REMEDIES
    )
