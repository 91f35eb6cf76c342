"""Expectations over a Gaussian, exact to rounding for functions with kinks and jumps.

Gauss-Hermite with 100 nodes errs by 2.5e-4 at a kink. Here the line is cut until the function is a polynomial to
rounding on every piece, which grades the pieces towards kinks by itself, and each piece gets Gauss-Legendre.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lightning_tricks._compat.torch_functions import unseen
from lightning_tricks.activations import BoundActivation, activation_of, by_function, by_name

__all__ = ["ActivationLike", "ScalarFunction", "gaussian_nodes", "scalar_function"]

ActivationLike = str | nn.Module | BoundActivation | Callable[[Tensor], Tensor]

_NODES = 64
_PROBES = 16  # nodes of the interpolation that decides whether a piece is smooth
_TOLERANCE = 1e-13
_MAX_PIECES = 100_000
_REACH = 14.0  # standard deviations; what lies beyond weighs 1e-43


@dataclass(frozen=True)
class ScalarFunction:
    """An activation as a function of float64 numbers, with its name and the kinks that its user knows of."""

    name: str
    function: Callable[[Tensor], Tensor]
    kinks: tuple[float, ...] = ()

    def __call__(self, a: Tensor) -> Tensor:
        # A probe that is open at the time must not see these calls.
        with torch.no_grad(), unseen():
            return self.function(a)

    def derivative(self, a: Tensor) -> Tensor:
        with torch.enable_grad(), unseen():
            leaf = a.detach().requires_grad_()
            output = self.function(leaf)
            if not output.requires_grad:  # constant
                return torch.zeros_like(a)
            return torch.autograd.grad(output.sum(), leaf)[0]


def scalar_function(activation: ActivationLike, kinks: Sequence[float] = ()) -> ScalarFunction:
    """Whatever a user may call an activation, as one kind of function.

    Args:
        activation: A registry name (``"relu"``, also ``"linear"``), a torch function, a module, or any elementwise
            callable on tensors.
        kinks: Where it is not smooth, if known; found otherwise.

    Raises:
        ValueError: An unknown name, or a PReLU whose channels differ.
        TypeError: Not callable, or it does not map n numbers to n numbers.

    >>> scalar_function(nn.LeakyReLU(0.2))(torch.tensor([-1.0]))
    tensor([-0.2000])
    """
    if isinstance(activation, ScalarFunction):
        return activation
    if isinstance(activation, type):
        raise TypeError(f"activation must not be the class {activation.__name__}: call it, {activation.__name__}()")
    points = tuple(float(kink) for kink in kinks)
    if isinstance(activation, str):
        if activation in ("linear", "identity"):
            return ScalarFunction("linear", _identity, points)
        activation = by_name(activation).bind()
    elif isinstance(activation, nn.Module):
        activation = activation_of(activation) or _ModuleFunction(activation)
    elif not isinstance(activation, BoundActivation) and activation in by_function:
        activation = by_function[activation].bind()
    if isinstance(activation, BoundActivation):
        return ScalarFunction(activation.name, _without_tensors(activation), points)
    if not callable(activation):
        raise TypeError(f"an activation is a name, a module or a function of a tensor, not {type(activation).__name__}")
    trial = activation(torch.linspace(-1.0, 1.0, 5, dtype=torch.float64))
    if not isinstance(trial, Tensor) or trial.shape != (5,):
        raise TypeError(f"{activation!r} is not elementwise: 5 numbers in gave {getattr(trial, 'shape', trial)} out")
    return ScalarFunction(getattr(activation, "__name__", type(activation).__name__), activation, points)


def gaussian_nodes(function: ScalarFunction, mean: float, variance: float) -> tuple[Tensor, Tensor]:
    """Nodes a and weights w with ``E f(a) = sum(w * f(a))`` for a ~ N(mean, variance).

    Right to rounding for ``function``, its powers and its derivative.

    Raises:
        ValueError: The variance is negative or not finite, or the function is not smooth in pieces (random, or wilder
            than 100000 pieces).
    """
    if not (math.isfinite(mean) and math.isfinite(variance) and variance >= 0):
        raise ValueError(f"mean and variance have to be finite, the variance not negative; got {mean} and {variance}")
    if variance == 0:
        return torch.tensor([mean], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    std = math.sqrt(variance)
    low, high = mean - _REACH * std, mean + _REACH * std
    size = 2.0 ** max(3, math.ceil(math.log2(max(abs(low), abs(high)))))
    cuts = {low, high, *(mean + std * z for z in np.arange(-13.0, 13.5, 1.0))}
    cuts.update(cut for cut in (*_mesh(function, size), *function.kinks) if low < cut < high)
    edges = torch.tensor(sorted(cuts), dtype=torch.float64)
    left, width = edges[:-1, None], edges.diff()[:, None]
    points, weights = _legendre(_NODES)
    nodes = (left + width * points).flatten()
    z = (nodes - mean) / std
    density = torch.exp(-0.5 * z * z) / (std * math.sqrt(2 * math.pi))
    return nodes, (width * weights).flatten() * density


@functools.lru_cache(maxsize=256)
def _mesh(function: ScalarFunction, size: float) -> tuple[float, ...]:
    """Cuts of [-size, size] between which the function is a polynomial of degree 15 to rounding."""
    powers = [2.0**k for k in range(-2, int(math.log2(size)) + 1)]
    edges = torch.tensor([*(-p for p in reversed(powers)), 0.0, *powers], dtype=torch.float64)
    left, right = edges[:-1], edges[1:]
    done: list[Tensor] = [edges]
    pieces = len(left)
    while len(left):
        middle = 0.5 * (left + right)
        # Below the spacing of float64 numbers nothing is left to cut.
        rough = _roughness(function, left, right) & (right - left > 4e-16 * torch.maximum(left.abs(), right.abs()))
        rough &= (middle > left) & (middle < right) & (right - left > 1e-15)
        left, middle, right = left[rough], middle[rough], right[rough]
        done.append(middle)
        pieces += len(middle)
        if pieces > _MAX_PIECES:
            raise ValueError(
                f"{function.name} is not smooth in pieces: more than {_MAX_PIECES} were needed (is it random?)"
            )
        left, right = torch.cat([left, middle]), torch.cat([middle, right])
    return tuple(sorted(set(torch.cat(done).tolist())))


def _roughness(function: ScalarFunction, left: Tensor, right: Tensor) -> Tensor:
    points, matrix = _interpolation()
    width = (right - left)[:, None]
    values = function(left[:, None] + width * points)
    nodes, checks = values[:, :_PROBES], values[:, _PROBES:]
    scale = values.abs().amax(1).clamp_min(1.0)
    return (checks - nodes @ matrix).abs().amax(1) > _TOLERANCE * 10 * scale


@functools.lru_cache(maxsize=1)
def _interpolation() -> tuple[Tensor, Tensor]:
    """Legendre nodes followed by check points on [0, 1], and the matrix from the values at the nodes to the checks."""
    nodes = _legendre(_PROBES)[0].numpy()
    checks = np.array([1e-3, 0.11, 0.27, 0.41, 0.5, 0.59, 0.73, 0.89, 1 - 1e-3])
    difference = nodes[:, None] - nodes[None, :] + np.eye(len(nodes))
    barycentric = 1.0 / difference.prod(1)
    ratios = barycentric / (checks[:, None] - nodes)
    matrix = (ratios / ratios.sum(1, keepdims=True)).T
    return torch.from_numpy(np.concatenate([nodes, checks])), torch.from_numpy(matrix)


@functools.lru_cache(maxsize=4)
def _legendre(count: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(0.5 * (nodes + 1.0)), torch.from_numpy(0.5 * weights)


def _identity(a: Tensor) -> Tensor:
    return a


class _ModuleFunction:
    """An elementwise module in float64 and in eval; the user's module stays as it is."""

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).double().eval()
        self.__name__ = type(module).__name__

    def __call__(self, a: Tensor) -> Tensor:
        return self.module(a)


def _without_tensors(bound: BoundActivation) -> Callable[[Tensor], Tensor]:
    """Learned parameters as float64 numbers: one slope for every channel."""
    values = {}
    for key, value in bound.parameters:
        if isinstance(value, Tensor):
            value = value.detach().flatten().double().cpu()
            if value.numel() > 1 and float(value.min()) != float(value.max()):
                raise ValueError(f"the channels of this {bound.name} have different slopes; ask for one at a time")
            value = value[:1]
        elif value is None and bound.name == "prelu":
            value = torch.tensor([0.25], dtype=torch.float64)
        values[key] = value
    if not any(isinstance(value, Tensor) for value in values.values()):
        return bound
    return functools.partial(bound.activation.function, **values)
