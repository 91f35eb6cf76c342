"""The activation functions of torch, one entry each: all that the package knows of one stands here."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.activations.activation import Activation

_SELU_SCALE = 1.0507009873554804934193349852946
_SELU_ALPHA = 1.6732632423543772848170429916717


def _where_positive(a: Tensor, negative: Tensor | float, positive: float = 1.0) -> Tensor:
    if not isinstance(negative, Tensor):
        negative = torch.tensor(negative, dtype=a.dtype, device=a.device)
    return torch.where(a > 0, torch.tensor(positive, dtype=a.dtype, device=a.device), negative)


def _indicator(condition: Tensor, like: Tensor) -> Tensor:
    return condition.to(like.dtype)


def _ones(a: Tensor) -> Tensor:
    return a.new_ones(()).expand_as(a)


_aten = torch.ops.aten  # the derivative's own kernel: saves no tensor, so nothing that watches the graph is disturbed
ENTRIES = (
    Activation(
        "relu",
        F.relu,
        module=nn.ReLU,
        slope=lambda a, g: _indicator(g > 0, g),
        hard_zero=True,
        unit_slope=True,
        range=(0.0, math.inf),
        rectifier=True,
        scale_free=True,
    ),
    Activation(
        "relu6",
        F.relu6,
        module=nn.ReLU6,
        slope=lambda a, g: _indicator((g > 0) & (g < 6), g),
        hard_zero=True,
        unit_slope=True,
        range=(0.0, 6.0),
    ),
    Activation(
        "leaky_relu",
        F.leaky_relu,
        {"negative_slope": 0.01},
        module=nn.LeakyReLU,
        slope=lambda a, g, negative_slope: _where_positive(a, negative_slope),
        rectifier=True,
        scale_free=True,
    ),
    Activation(
        "prelu",
        F.prelu,
        {"weight": None},
        module=nn.PReLU,
        slope=lambda a, g, weight: _where_positive(a, weight),
        rectifier=True,
        scale_free=True,
    ),
    Activation(
        "rrelu",
        F.rrelu,
        {"lower": 1.0 / 8, "upper": 1.0 / 3},
        module=nn.RReLU,
        slope=lambda a, g, lower, upper: _where_positive(a, torch.where(a == 0, (lower + upper) / 2, g / a)),
        rectifier=True,
        scale_free=True,
    ),
    Activation(
        "elu",
        F.elu,
        {"alpha": 1.0},
        module=nn.ELU,
        slope=lambda a, g, alpha: _where_positive(a, g + alpha),
        range=(-1.0, math.inf),
        rectifier=True,
    ),
    Activation(
        "selu",
        F.selu,
        module=nn.SELU,
        slope=lambda a, g: _where_positive(a, g + _SELU_SCALE * _SELU_ALPHA, _SELU_SCALE),
        range=(-1.7581, math.inf),
    ),
    Activation(
        "celu",
        F.celu,
        {"alpha": 1.0},
        module=nn.CELU,
        slope=lambda a, g, alpha: _where_positive(a, g / alpha + 1.0),
        range=(-1.0, math.inf),
        rectifier=True,
    ),
    Activation(
        "tanh",
        torch.tanh,
        module=nn.Tanh,
        slope=lambda a, g: 1.0 - g * g,
        range=(-1.0, 1.0),
        two_sided=True,
    ),
    Activation(
        "sigmoid",
        torch.sigmoid,
        module=nn.Sigmoid,
        slope=lambda a, g: g * (1.0 - g),
        names=("expit",),
        range=(0.0, 1.0),
        two_sided=True,
        fading=True,
    ),
    Activation(
        "hardtanh",
        F.hardtanh,
        {"min_val": -1.0, "max_val": 1.0},
        module=nn.Hardtanh,
        slope=lambda a, g, min_val, max_val: _indicator((a > min_val) & (a < max_val), g),
        hard_zero=True,
        unit_slope=True,
        range=(-1.0, 1.0),
        two_sided=True,
    ),
    Activation(
        "hardsigmoid",
        F.hardsigmoid,
        module=nn.Hardsigmoid,
        slope=lambda a, g: _indicator((g > 0) & (g < 1), g) / 6.0,
        hard_zero=True,
        range=(0.0, 1.0),
        two_sided=True,
        fading=True,
    ),
    Activation(
        "hardswish",
        F.hardswish,
        module=nn.Hardswish,
        slope=lambda a, g: _aten.hardswish_backward(_ones(a), a),
        hard_zero=True,
        range=(-0.375, math.inf),
    ),
    Activation(
        "gelu",
        F.gelu,
        {"approximate": "none"},
        module=nn.GELU,
        slope=lambda a, g, approximate: _aten.gelu_backward(_ones(a), a, approximate=approximate),
        range=(-0.17, math.inf),
    ),
    Activation(
        "silu",
        F.silu,
        module=nn.SiLU,
        slope=lambda a, g: _aten.silu_backward(_ones(a), a),
        range=(-0.28, math.inf),
    ),
    Activation(
        "mish",
        F.mish,
        module=nn.Mish,
        slope=lambda a, g: _aten.mish_backward(_ones(a), a),
        range=(-0.31, math.inf),
    ),
    Activation(
        "softplus",
        F.softplus,
        {"beta": 1.0, "threshold": 20.0},
        module=nn.Softplus,
        slope=lambda a, g, beta, threshold: torch.where(a * beta > threshold, 1.0, torch.sigmoid(beta * a)),
        range=(0.0, math.inf),
        makes_positive=True,
    ),
    Activation(
        "softsign",
        F.softsign,
        module=nn.Softsign,
        slope=lambda a, g: (1.0 - g.abs()).square(),
        range=(-1.0, 1.0),
        two_sided=True,
        fading=True,
    ),
    Activation(
        "logsigmoid",
        F.logsigmoid,
        module=nn.LogSigmoid,
        slope=lambda a, g: torch.sigmoid(-a),
        names=("log_sigmoid",),
        range=(-math.inf, 0.0),
    ),
    Activation(
        "tanhshrink",
        F.tanhshrink,
        module=nn.Tanhshrink,
        slope=lambda a, g: (a - g).square(),
        fading=True,
    ),
    Activation(
        "softshrink",
        F.softshrink,
        {"lambd": 0.5},
        module=nn.Softshrink,
        slope=lambda a, g, lambd: _indicator(a.abs() > lambd, g),
        hard_zero=True,
    ),
    Activation(
        "hardshrink",
        F.hardshrink,
        {"lambd": 0.5},
        module=nn.Hardshrink,
        slope=lambda a, g, lambd: _indicator(a.abs() > lambd, g),
        hard_zero=True,
    ),
    Activation(
        "threshold",
        F.threshold,
        {"threshold": 0.0, "value": 0.0},
        module=nn.Threshold,
        slope=lambda a, g, threshold, value: _indicator(a > threshold, g),
        hard_zero=True,
    ),
)
