"""The registry of activation functions: which torch function is one, its derivative, where it is flat.

Whatever has to know an activation by its function reads it here: the probe (which sees functions being called), the
theory of moments (what a unit does to a distribution) and the initialisers (which gain follows).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Activation", "BoundActivation", "ShiftedReLU", "activation_of", "by_function", "by_name"]

SATURATED = 0.05  # a flat side is where the slope is under this share of the largest slope
_SELU_SCALE = 1.0507009873554804934193349852946
_SELU_ALPHA = 1.6732632423543772848170429916717


@dataclass(frozen=True, eq=False)
class Activation:
    """One activation function g and every name under which torch offers it.

    Args:
        name: The registry name, such as ``"relu"``.
        function: The out-of-place function, ``function(a, **parameters)``.
        parameters: The parameters after the input in the order of the call, with their defaults.
        aliases: Other callables that compute the same: methods, in-place forms, functions of ``torch``.
        module: The module class that computes it, or None.
        slope: ``slope(a, g, **parameters)``, the derivative from pre-activation and output; None: by autograd.
        hard_zero: Whether g' is exactly zero on an interval, so that a unit can be dead.
        unit_slope: Whether g' is 0 or 1 everywhere, so that its flat sides are where it is 0.
    """

    name: str
    function: Callable[..., Tensor]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[Callable[..., Tensor], ...] = ()
    module: type[nn.Module] | None = None
    slope: Callable[..., Tensor] | None = None
    hard_zero: bool = False
    unit_slope: bool = False

    def bind(self, *args: Any, **kwargs: Any) -> BoundActivation:
        """The activation with the parameters of one call (the arguments after the input)."""
        values = dict(self.parameters)
        values.update(zip(self.parameters, args, strict=False))
        values.update((key, value) for key, value in kwargs.items() if key in values)
        return BoundActivation(self, tuple(values.items()))


@dataclass(frozen=True)
class BoundActivation:
    """An activation with its parameters fixed: a function of the pre-activation alone.

    >>> g = by_name("leaky_relu").bind(0.2)
    >>> g(torch.tensor([-1.0, 2.0]))
    tensor([-0.2000,  2.0000])
    >>> g.derivative(torch.tensor([-1.0, 2.0]))
    tensor([0.2000, 1.0000])
    >>> low, high = by_name("tanh").bind().flat_sides
    >>> round(low, 4), round(high, 4)
    (-2.1783, 2.1783)
    """

    activation: Activation
    parameters: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        return self.activation.name

    def __call__(self, a: Tensor) -> Tensor:
        return self.activation.function(a, **dict(self.parameters))

    def derivative(self, a: Tensor, g: Tensor | None = None) -> Tensor:
        """g'(a), elementwise; ``g`` is the output where it is already known."""
        if self.activation.slope is not None:
            return self.activation.slope(a, self(a) if g is None else g, **dict(self.parameters))
        with torch.enable_grad():
            leaf = a.detach().requires_grad_()
            output = self(leaf)
            (slope,) = torch.autograd.grad(output, leaf, torch.ones_like(output))
        return slope

    @property
    def flat_sides(self) -> tuple[float, float]:
        """``(low, high)``: abs(g') < 0.05 max abs(g') on a < low and on a > high; infinite where no side is flat."""
        if any(isinstance(value, Tensor) for _, value in self.parameters):
            return -math.inf, math.inf  # PReLU: the slope is learned, not known
        return _flat_sides(self)


@functools.lru_cache(maxsize=256)
def _flat_sides(bound: BoundActivation, reach: float = 100.0, points: int = 20_001) -> tuple[float, float]:
    with torch._C.DisableTorchFunction():
        grid = torch.linspace(-reach, reach, points, dtype=torch.float64)
        slopes = bound.derivative(grid).abs()
        limit = SATURATED * float(slopes.max())

        def flat(a: float) -> bool:
            return float(bound.derivative(torch.tensor([a], dtype=torch.float64)).abs()) < limit

        def border(inside: float, outside: float) -> float:
            for _ in range(60):
                middle = 0.5 * (inside + outside)
                inside, outside = (middle, outside) if flat(middle) else (inside, middle)
            return outside

        steep = (slopes >= limit).nonzero().flatten().tolist()
        first, last = steep[0], steep[-1]
        low = border(float(grid[first - 1]), float(grid[first])) if first > 0 else -math.inf
        high = border(float(grid[last + 1]), float(grid[last])) if last < points - 1 else math.inf
    return low, high


def _where_positive(a: Tensor, negative: Tensor | float, positive: float = 1.0) -> Tensor:
    if not isinstance(negative, Tensor):
        negative = torch.tensor(negative, dtype=a.dtype, device=a.device)
    return torch.where(a > 0, torch.tensor(positive, dtype=a.dtype, device=a.device), negative)


def _indicator(condition: Tensor, like: Tensor) -> Tensor:
    return condition.to(like.dtype)


def _ones(a: Tensor) -> Tensor:
    return a.new_ones(()).expand_as(a)


_T = torch.Tensor
_aten = torch.ops.aten  # the derivative's own kernel: saves no tensor, so nothing that watches the graph is disturbed
_ENTRIES = (
    Activation(
        "relu",
        F.relu,
        aliases=(torch.relu, torch.relu_, F.relu_, _T.relu, _T.relu_),
        module=nn.ReLU,
        slope=lambda a, g: _indicator(g > 0, g),
        hard_zero=True,
        unit_slope=True,
    ),
    Activation(
        "relu6",
        F.relu6,
        module=nn.ReLU6,
        slope=lambda a, g: _indicator((g > 0) & (g < 6), g),
        hard_zero=True,
        unit_slope=True,
    ),
    Activation(
        "leaky_relu",
        F.leaky_relu,
        {"negative_slope": 0.01},
        aliases=(F.leaky_relu_, torch._C._nn.leaky_relu, torch._C._nn.leaky_relu_),
        module=nn.LeakyReLU,
        slope=lambda a, g, negative_slope: _where_positive(a, negative_slope),
    ),
    Activation(
        "prelu",
        F.prelu,
        {"weight": None},
        aliases=(torch.prelu, _T.prelu),
        module=nn.PReLU,
        slope=lambda a, g, weight: _where_positive(a, weight),
    ),
    Activation(
        "rrelu",
        F.rrelu,
        {"lower": 1.0 / 8, "upper": 1.0 / 3},
        aliases=(torch.rrelu, torch.rrelu_, F.rrelu_),
        module=nn.RReLU,
        slope=lambda a, g, lower, upper: _where_positive(a, torch.where(a == 0, (lower + upper) / 2, g / a)),
    ),
    Activation(
        "elu",
        F.elu,
        {"alpha": 1.0},
        aliases=(F.elu_, torch._C._nn.elu, torch._C._nn.elu_),
        module=nn.ELU,
        slope=lambda a, g, alpha: _where_positive(a, g + alpha),
    ),
    Activation(
        "selu",
        F.selu,
        aliases=(torch.selu, torch.selu_, F.selu_),
        module=nn.SELU,
        slope=lambda a, g: _where_positive(a, g + _SELU_SCALE * _SELU_ALPHA, _SELU_SCALE),
    ),
    Activation(
        "celu",
        F.celu,
        {"alpha": 1.0},
        aliases=(torch.celu, torch.celu_, F.celu_),
        module=nn.CELU,
        slope=lambda a, g, alpha: _where_positive(a, g / alpha + 1.0),
    ),
    Activation(
        "tanh",
        torch.tanh,
        aliases=(torch.tanh_, F.tanh, _T.tanh, _T.tanh_),
        module=nn.Tanh,
        slope=lambda a, g: 1.0 - g * g,
    ),
    Activation(
        "sigmoid",
        torch.sigmoid,
        aliases=(torch.sigmoid_, F.sigmoid, _T.sigmoid, _T.sigmoid_, torch.special.expit),
        module=nn.Sigmoid,
        slope=lambda a, g: g * (1.0 - g),
    ),
    Activation(
        "hardtanh",
        F.hardtanh,
        {"min_val": -1.0, "max_val": 1.0},
        aliases=(F.hardtanh_, torch._C._nn.hardtanh, torch._C._nn.hardtanh_),
        module=nn.Hardtanh,
        slope=lambda a, g, min_val, max_val: _indicator((a > min_val) & (a < max_val), g),
        hard_zero=True,
        unit_slope=True,
    ),
    Activation(
        "hardsigmoid",
        F.hardsigmoid,
        module=nn.Hardsigmoid,
        slope=lambda a, g: _indicator((g > 0) & (g < 1), g) / 6.0,
        hard_zero=True,
    ),
    Activation(
        "hardswish",
        F.hardswish,
        module=nn.Hardswish,
        slope=lambda a, g: _aten.hardswish_backward(_ones(a), a),
        hard_zero=True,
    ),
    Activation(
        "gelu",
        F.gelu,
        {"approximate": "none"},
        aliases=(torch._C._nn.gelu,),
        module=nn.GELU,
        slope=lambda a, g, approximate: _aten.gelu_backward(_ones(a), a, approximate=approximate),
    ),
    Activation(
        "silu",
        F.silu,
        aliases=(torch._C._nn.silu, torch._C._nn.silu_),
        module=nn.SiLU,
        slope=lambda a, g: _aten.silu_backward(_ones(a), a),
    ),
    Activation(
        "mish",
        F.mish,
        aliases=(torch._C._nn.mish, torch._C._nn.mish_),
        module=nn.Mish,
        slope=lambda a, g: _aten.mish_backward(_ones(a), a),
    ),
    Activation(
        "softplus",
        F.softplus,
        {"beta": 1.0, "threshold": 20.0},
        module=nn.Softplus,
        slope=lambda a, g, beta, threshold: torch.where(a * beta > threshold, 1.0, torch.sigmoid(beta * a)),
    ),
    Activation("softsign", F.softsign, module=nn.Softsign, slope=lambda a, g: (1.0 - g.abs()).square()),
    Activation("logsigmoid", F.logsigmoid, module=nn.LogSigmoid, slope=lambda a, g: torch.sigmoid(-a)),
    Activation("tanhshrink", F.tanhshrink, module=nn.Tanhshrink, slope=lambda a, g: (a - g).square()),
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
        aliases=(torch.hardshrink, _T.hardshrink),
        module=nn.Hardshrink,
        slope=lambda a, g, lambd: _indicator(a.abs() > lambd, g),
        hard_zero=True,
    ),
    Activation(
        "threshold",
        F.threshold,
        {"threshold": 0.0, "value": 0.0},
        aliases=(torch.threshold, vars(F)["threshold_"]),
        module=nn.Threshold,
        slope=lambda a, g, threshold, value: _indicator(a > threshold, g),
        hard_zero=True,
    ),
)

_BY_NAME: dict[str, Activation] = {entry.name: entry for entry in _ENTRIES}
by_function: Mapping[Callable[..., Any], Activation] = {
    function: entry for entry in _ENTRIES for function in (entry.function, *entry.aliases)
}
_BY_MODULE: dict[type[nn.Module], Activation] = {entry.module: entry for entry in _ENTRIES if entry.module is not None}


def by_name(name: str) -> Activation:
    """The entry of a registry name.

    Raises:
        ValueError: The name is unknown; the message lists the known ones.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise ValueError(f"unknown activation {name!r}; known are {', '.join(sorted(_BY_NAME))}") from None


def activation_of(module: nn.Module) -> BoundActivation | None:
    """The activation that a module computes, with the module's own parameters, or None for any other module.

    >>> activation_of(nn.ELU(alpha=0.5)).parameters
    (('alpha', 0.5),)
    >>> activation_of(nn.Linear(2, 2)) is None
    True
    """
    entry = next((_BY_MODULE[cls] for cls in type(module).__mro__ if cls in _BY_MODULE), None)
    if entry is None:
        return None
    return entry.bind(**{key: getattr(module, key) for key in entry.parameters if hasattr(module, key)})


class ShiftedReLU(nn.Threshold):
    """max(a, -1): a ReLU whose output can have mean 0 (Clevert et al. 2016, section 4, "SReLU").

    As linear for positive input as ReLU, with negative output like ELU: what is left of the bias problem is the hard
    floor, under which a unit has no gradient. To probes it is a ``threshold``, which is the function that it calls.

    Args:
        shift: How far below zero the floor lies; 1 in the paper.

    Raises:
        ValueError: The shift is not finite.

    >>> ShiftedReLU()(torch.tensor([-3.0, -0.5, 2.0]))
    tensor([-1.0000, -0.5000,  2.0000])
    """

    def __init__(self, shift: float = 1.0, inplace: bool = False) -> None:
        if not math.isfinite(shift):
            raise ValueError(f"shift has to be finite, not {shift}")
        super().__init__(-shift, -shift, inplace)
