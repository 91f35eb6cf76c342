"""Faults of layers: how weights and biases begin, which activations follow."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..setup import Setup
from .kind import Kind


class Shift(nn.Module):
    """Adds a constant, as a forgotten offset or a feature that is always on does."""

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, x: Tensor) -> Tensor:
        return x + self.constant


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def _layers(setup: Setup) -> Iterator[nn.Module]:
    """The weighted modules of all places."""
    return (setup.hidden(k) for k in range(len(setup.network.places)))


def _all_weights(setup: Setup) -> Iterator[Tensor]:
    """Every weight matrix or filter of the network but the head's."""
    head = set(setup.head.parameters())
    return (p for p in setup.network.parameters() if p.dim() > 1 and p not in head)


@torch.no_grad()
def scale_layer(setup: Setup, place: int | None, factor: float) -> None:
    """Weights and biases of one layer, or of all hidden layers (place None), times a factor."""
    for layer in _layers(setup) if place is None else [setup.hidden(place)]:
        for parameter in layer.parameters():
            parameter.mul_(factor)


@torch.no_grad()
def scale_hidden(setup: Setup, place: int, factor: float) -> None:
    """Weights of all hidden layers times a factor."""
    for layer in _layers(setup):
        layer.weight.mul_(factor)


@torch.no_grad()
def draw_everywhere(setup: Setup, place: int, std: float) -> None:
    """All weights from N(0, std^2), whatever the fan-in."""
    for weight in _all_weights(setup):
        weight.normal_(std=std)


@torch.no_grad()
def shift_biases(setup: Setup, place: int | None, by: float) -> None:
    """Of one layer, or of all hidden layers (place None)."""
    for layer in _layers(setup) if place is None else [setup.hidden(place)]:
        layer.bias.add_(by)


@torch.no_grad()
def spread_biases(setup: Setup, place: int, size: float) -> None:
    """Large biases, one half of the units positive and the other negative."""
    bias = setup.hidden(place).bias
    bias.copy_(torch.where(torch.arange(len(bias)) % 2 == 0, size, -size))


@torch.no_grad()
def turn_negative(setup: Setup, place: int, factor: float) -> None:
    """Weights all negative on inputs that a rectifier made positive: no unit is ever active."""
    layer = setup.hidden(place)
    layer.weight.copy_(-factor * layer.weight.abs())
    layer.bias.copy_(-layer.bias.abs())


@torch.no_grad()
def fill(setup: Setup, place: int | None, value: float) -> None:
    """All weights of a layer, or of all hidden layers (place None), the same."""
    layers = _layers(setup) if place is None else [setup.hidden(place)]
    for layer in layers:
        layer.weight.fill_(value)
        layer.bias.zero_()


def forget_all(setup: Setup, place: int, strength: float) -> None:
    for k in range(len(setup.network.places)):
        setup.network.forget(k)


def forget_last(setup: Setup, place: int, strength: float) -> None:
    setup.network.forget(len(setup.network.places) - 1)


def sigmoid_everywhere(setup: Setup, place: int, strength: float) -> None:
    """Logistic units in every layer, with torch's default start."""
    for spot in setup.network.places:
        setup.network.put(spot.activation, nn.Sigmoid())
    for layer in _layers(setup):
        layer.reset_parameters()


def positive_units(setup: Setup, place: int, size: float) -> None:
    """Logistic units times a size in place of tanh: the slope at 0 of size / 4, but all outputs positive."""
    for spot in setup.network.places:
        setup.network.put(spot.activation, nn.Sigmoid())
        setup.network.put(spot.plug, Scale(size))


def shift_output(setup: Setup, place: int, constant: float) -> None:
    setup.network.put(setup.network.places[place].plug, Shift(constant))


@torch.no_grad()
def shift_norm(setup: Setup, place: int, by: float) -> None:
    """The bias of a normalisation behind an activation."""
    setup.network.get_submodule(setup.network.places[place].norm).bias.add_(by)


# Where the planted weights of the start ARE the fault, "poor_initialization" names it as honestly as what they bring
# about in the units: a reader is led to the same lines of code. The strict figures do not accept it.
_START = ("poor_initialization",)

LAYER_FAULTS: dict[str, Kind] = {
    "tiny weights": Kind(scale_layer, "linearity", also=_START),
    "always on": Kind(shift_biases, "linearity", "body"),
    "no activation": Kind(forget_all, "linearity", "body", in_code=True),
    "last activation forgotten": Kind(forget_last, "linearity", "last", in_code=True),
    "huge weights": Kind(scale_layer, "saturation", also=_START),
    "huge biases": Kind(spread_biases, "saturation"),
    "normal weights": Kind(draw_everywhere, "saturation", "body", also=_START),
    "negative biases": Kind(shift_biases, "dead_units"),
    "negative weights": Kind(turn_negative, "dead_units"),
    "deep sigmoid": Kind(sigmoid_everywhere, "vanishing_gradient", "body"),
    "small weights": Kind(scale_hidden, "vanishing_gradient", "body", also=_START),
    "large weights": Kind(scale_hidden, "exploding_gradient", "body", also=_START),
    "shifted output": Kind(shift_output, "bias_shift", "behind"),
    "shifted norm": Kind(shift_norm, "bias_shift", "behind"),
    "positive units": Kind(positive_units, "bias_shift", "behind first"),
    "layer scaled": Kind(scale_layer, "poor_initialization"),
    "all scaled": Kind(scale_hidden, "poor_initialization", "body"),
    "all tiny": Kind(draw_everywhere, "poor_initialization", "body"),
    "constant weights": Kind(fill, "symmetric_weights"),
    "all constant": Kind(fill, "symmetric_weights", "body"),
}
