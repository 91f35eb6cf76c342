"""All architectures, each in the half thresholds are calibrated on (A) or in the half that is reported (B)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

from torch import nn

from . import dense, images, language, sequences
from .network import Network

Half = Literal["A", "B"]
SMOOTH = ("tanh", "gelu", "silu", "elu", "leaky_relu")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """How a network is built.

    Args:
        half: Fixed here, never by results; every family is in both halves.
        family: What the two halves have in common.
        build: From (inputs, outputs, activation) to the network.
        activations: Those it is healthy with, the usual one first.
        images: Whether it reads the 64 pixels of the digits as an image or as rows; else any table.
        start: Its initialisation when it is healthy: torch's default where empty.
        lr: Factor on the optimiser's usual learning rate; for some optimisers another.
        data: What it is usually trained with.
        loss: What its loss is usually called (see Case).
    """

    half: Half
    family: str
    build: Callable[[int, int, str], Network]
    activations: tuple[str, ...] = ("relu",)
    images: bool = False
    start: str = ""
    lr: Mapping[str, float] = dataclasses.field(default_factory=dict)
    data: str = "digits"
    loss: str = ""


def group_norm(width: int) -> nn.Module:
    return nn.GroupNorm(4, width)


def _mlp(*widths: int, **options) -> Callable[[int, int, str], Network]:
    return lambda i, o, a: dense.MLP(i, o, a, widths, **options)


def _foreteller(
    half: Half, family: str, mixer: Callable[[int], nn.Module], lr: float = 2.0, width: int = 48
) -> Architecture:
    """Of what comes next, in words or in a series."""
    build = lambda i, o, a: language.Foreteller(mixer(width), o, a, width)  # noqa: E731
    return Architecture(half, family, build, ("gelu",), lr={"": lr}, data="words")


ARCHITECTURES: dict[str, Architecture] = {
    # plain stacks
    "mlp3": Architecture("A", "stack", _mlp(64, 64, 64), ("relu", *SMOOTH, "sigmoid")),
    "mlp10": Architecture(
        "A", "stack", _mlp(*[48] * 10), ("relu", "tanh", "selu", "gelu"), start="fitting", lr={"": 0.5}
    ),
    "sequential4": Architecture(
        "B",
        "stack",
        lambda i, o, a: dense.Sequence3(i, o, a, (96, 64, 48, 32)),
        ("relu", *SMOOTH, "mish", "hardswish", "softplus"),
        lr={"sgd": 2.0},
    ),
    "mlp6": Architecture(
        "B",
        "stack",
        _mlp(*[64] * 6),
        ("relu", "tanh", "selu", "gelu", "elu"),
        start="fitting",
        lr={"": 0.5, "sgd": 1.0},
    ),
    # activations called as functions
    "functional3": Architecture(
        "A", "functional", lambda i, o, a: dense.Functional(i, o, a, (64, 64, 64)), ("relu", "tanh", "gelu")
    ),
    "functional5": Architecture(
        "B",
        "functional",
        lambda i, o, a: dense.Functional(i, o, a, (64,) * 5),
        ("relu", "tanh", "silu"),
        start="fitting",
    ),
    # normalised stacks
    "mlp_bn": Architecture("A", "normalised", _mlp(64, 64, 64, 64, norm=nn.BatchNorm1d), ("relu", "tanh", "sigmoid")),
    "mlp_ln": Architecture("A", "normalised", _mlp(64, 64, 64, norm=nn.LayerNorm), ("gelu", "relu")),
    "mlp_bn_behind": Architecture(
        "B", "normalised", _mlp(64, 64, 64, norm=nn.BatchNorm1d, after=True), ("relu", "elu", "sigmoid")
    ),
    "mlp_ln6": Architecture("B", "normalised", _mlp(*[64] * 6, norm=nn.LayerNorm), ("silu", "relu")),
    # residual stacks
    "res_mlp": Architecture(
        "A", "residual", lambda i, o, a: dense.ResidualMLP(i, o, a, 64, 4, nn.LayerNorm), ("relu", "gelu")
    ),
    "res_mlp_plain": Architecture(
        "B", "residual", lambda i, o, a: dense.ResidualMLP(i, o, a, 48, 3), ("relu", "tanh", "gelu")
    ),
    # images
    "cnn": Architecture(
        "A",
        "cnn",
        lambda i, o, a: images.CNN(o, a, (12, 24, 24)),
        ("relu", "tanh", "gelu"),
        True,
        start="fitting",
        lr={"": 2.0},
    ),
    "lenet": Architecture("B", "cnn", lambda i, o, a: images.PooledCNN(o, a), ("relu", "tanh", "elu"), True),
    "cnn_bn": Architecture(
        "A",
        "cnn normalised",
        lambda i, o, a: images.CNN(o, a, (8, 16, 16), nn.BatchNorm2d),
        ("relu", "silu"),
        True,
        lr={"": 2.0},
    ),
    "cnn_bn5": Architecture(
        "B",
        "cnn normalised",
        lambda i, o, a: images.CNN(o, a, (10,) * 5, nn.BatchNorm2d),
        ("relu", "gelu"),
        True,
        lr={"": 2.0},
    ),
    "res_cnn": Architecture(
        "A", "cnn residual", lambda i, o, a: images.ResidualCNN(o, a, 12, 2, nn.BatchNorm2d), ("relu",), True
    ),
    "res_cnn_gn": Architecture(
        "B", "cnn residual", lambda i, o, a: images.ResidualCNN(o, a, 12, 2, group_norm), ("relu", "silu"), True
    ),
    # attention
    "transformer_pre": Architecture(
        "A", "attention", lambda i, o, a: sequences.Transformer(o, a, 2, True), ("gelu", "relu"), True
    ),
    "attention1": Architecture(
        "A", "attention", lambda i, o, a: sequences.Attention(o, a, 1), ("relu",), True, lr={"": 2.0, "sgd": 4.0}
    ),
    "transformer_post": Architecture(
        "B",
        "attention",
        lambda i, o, a: sequences.Transformer(o, a, 2, False),
        ("relu", "gelu"),
        True,
        lr={"": 1.0, "sgd": 2.0},
    ),
    "attention4": Architecture("B", "attention", lambda i, o, a: sequences.Attention(o, a, 2, 4), ("gelu",), True),
    # recurrent
    "lstm": Architecture(
        "A",
        "recurrent",
        lambda i, o, a: sequences.Recurrent(o, a, "lstm"),
        ("tanh", "relu"),
        True,
        lr={"": 2.0, "sgd": 5.0},
    ),
    "rnn": Architecture(
        "A", "recurrent", lambda i, o, a: sequences.Recurrent(o, a, "rnn"), ("relu",), True, lr={"": 1.0}
    ),
    "gru": Architecture(
        "B",
        "recurrent",
        lambda i, o, a: sequences.Recurrent(o, a, "gru"),
        ("relu", "tanh"),
        True,
        lr={"": 1.0, "sgd": 5.0},
    ),
    "lstm2": Architecture(
        "B",
        "recurrent",
        lambda i, o, a: sequences.Recurrent(o, a, "lstm", 2),
        ("relu",),
        True,
        lr={"": 2.0, "sgd": 15.0, "momentum": 5.0},
    ),
    "multihead": Architecture("A", "attention", lambda i, o, a: sequences.MultiHead(o, a, 4), ("relu",), True),
    "multihead2": Architecture("B", "attention", lambda i, o, a: sequences.MultiHead(o, a, 2), ("gelu",), True),
    # what comes next
    "next_gru": _foreteller("A", "next recurrent", lambda w: language.Kernel(nn.GRU, w)),
    "next_lstm": _foreteller("B", "next recurrent", lambda w: language.Kernel(nn.LSTM, w)),
    "next_transformer": _foreteller("A", "next attention", lambda w: language.Causal(1, True, w), 1.0),
    "next_attention": _foreteller("B", "next attention", lambda w: language.CausalByHand(2, w), 1.0),
    "next_conv": _foreteller("A", "next convolution", lambda w: language.Convolutions(2, w)),
    "next_conv3": _foreteller("B", "next convolution", lambda w: language.Convolutions(3, w)),
    "next_memory": _foreteller("A", "next memory", language.Memory),
    "next_memory64": _foreteller("B", "next memory", language.Memory, width=64),
    # masks
    "masks": Architecture(
        "A", "masks", lambda i, o, a: images.Segmenter(a, (12, 12)), ("relu",), data="spots", loss="weighted"
    ),
    "masks_bn": Architecture(
        "B",
        "masks",
        lambda i, o, a: images.Segmenter(a, (8, 8, 8), nn.BatchNorm2d),
        ("relu",),
        data="spots",
        loss="weighted",
    ),
    # gates
    "cell": Architecture(
        "A", "gates", lambda i, o, a: sequences.Cell(o, a, False), ("relu", "tanh"), True, lr={"": 2.0, "sgd": 4.0}
    ),
    "squeeze": Architecture(
        "A",
        "gates",
        lambda i, o, a: images.SqueezeExcite(o, a),
        ("relu", "silu"),
        True,
        "fitting",
        {"": 4.0, "sgd": 6.0},
    ),
    "swiglu": Architecture("A", "gates", lambda i, o, a: dense.Gated(i, o, a, 48, 3), ("silu", "sigmoid")),
    "minimal_cell": Architecture(
        "B", "gates", lambda i, o, a: sequences.Cell(o, a, True), ("tanh", "relu"), True, lr={"": 2.0, "sgd": 4.0}
    ),
    "highway": Architecture("B", "gates", lambda i, o, a: dense.Highway(i, o, a, 48, 5), ("relu", "tanh")),
    # weights used more than once
    "tied": Architecture(
        "A", "tied", lambda i, o, a: dense.TiedAutoencoder(i, o, a, (64, 32)), ("tanh", "relu", "gelu")
    ),
    "shared": Architecture("B", "tied", lambda i, o, a: dense.Shared(i, o, a, 64, 3), ("relu", "tanh")),
    # self-normalising
    "selu6": Architecture("A", "selu", lambda i, o, a: dense.SELUNetwork(i, o, 64, 6), ("selu",)),
    "selu12": Architecture(
        "B", "selu", lambda i, o, a: dense.SELUNetwork(i, o, 48, 12), ("selu",), lr={"": 0.5, "sgd": 1.0}
    ),
    # one layer
    "linear": Architecture("A", "linear", lambda i, o, a: dense.Linear(i, o), ("none",), lr={"": 5.0, "sgd": 1.0}),
    "linear_bn": Architecture(
        "B", "linear", lambda i, o, a: dense.Linear(i, o, True), ("none",), lr={"": 5.0, "sgd": 1.0}
    ),
}
