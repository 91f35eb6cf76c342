"""What an activation function is: its derivative, its properties, and its names in torch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks._compat import torch_functions

SATURATED = 0.05  # a flat side is where the slope is under this share of the largest slope


@dataclass(frozen=True, eq=False, kw_only=True)
class Properties:
    """What the rest of the package has to know of an activation; the defaults claim nothing.

    Args:
        range: Lower and upper bound of g, with the default parameters; infinite where there is none.
        two_sided: Whether g is a squashing function: increasing, bounded, with a flat side at either end.
        rectifier: Whether g(a) = a for a > 0 and g is less steep below.
        scale_free: Whether g(c a) = c g(a) for c > 0: faint signals make it no more linear than loud ones.
        fading: Whether the slopes are so small that no initial weights carry a signal through many layers.
        makes_positive: Whether g is the usual way to make a scale or a loss positive.
        hard_zero: Whether g' is exactly zero on an interval, so that a unit can be dead.
        unit_slope: Whether g' is 0 or 1 everywhere, so that its flat sides are where it is 0.
        elementwise: Whether g acts on every number alone; what does not has no derivative in this sense.
    """

    range: tuple[float, float] = (-math.inf, math.inf)
    two_sided: bool = False
    rectifier: bool = False
    scale_free: bool = False
    fading: bool = False
    makes_positive: bool = False
    hard_zero: bool = False
    unit_slope: bool = False
    elementwise: bool = True

    @property
    def probability(self) -> bool:
        """Whether g squashes into [0, 1], as a logistic unit does."""
        return self.two_sided and self.range == (0.0, 1.0)

    @property
    def cuts_at_zero(self) -> bool:
        """Whether g is zero on one side, and grows from there."""
        return self.hard_zero and not self.two_sided and self.range[0] == 0.0


_PLACES = ("functional", "torch", "Tensor", "special", "kernel")


@dataclass(frozen=True, eq=False)
class Activation(Properties):
    """One activation function g and every name under which torch offers it.

    Args:
        name: The registry name, such as ``"relu"``.
        function: The out-of-place function, ``function(a, **parameters)``.
        parameters: The parameters after the input in the order of the call, with their defaults.
        names: Further names in torch; the registry name and its in-place form with ``_`` are looked for by themselves.
        aliases: Other callables that compute the same and have none of these names.
        module: The module class that computes it, or None.
        slope: ``slope(a, g, **parameters)``, the derivative from pre-activation and output; None: by autograd.
    """

    name: str
    function: Callable[..., Tensor]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    aliases: tuple[Callable[..., Tensor], ...] = ()
    module: type[nn.Module] | None = None
    slope: Callable[..., Tensor] | None = None

    def bind(self, *args: Any, **kwargs: Any) -> BoundActivation:
        """The activation with the parameters of one call (the arguments after the input)."""
        values = dict(self.parameters)
        values.update(zip(self.parameters, args, strict=False))
        values.update((key, value) for key, value in kwargs.items() if key in values)
        return BoundActivation(self, tuple(values.items()))

    def functions(self) -> dict[Callable[..., Any], Callable[..., Any] | None]:
        """Every callable that computes it, as torch offers them now, each with torch's own that it leads to."""
        found: dict[Callable[..., Any], Callable[..., Any] | None] = {}
        for name in (self.name, f"{self.name}_", *self.names):
            for place in _PLACES:
                found |= torch_functions.resolve(f"{place}.{name}")
        own = {function: function for function in (self.function, *self.aliases) if function not in found}
        return {**found, **own}


@dataclass(frozen=True)
class BoundActivation:
    """An activation with its parameters fixed: a function of the pre-activation alone.

    >>> from lightning_tricks.activations import by_name
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
        if not self.activation.elementwise:
            raise ValueError(f"{self.name} does not act on every number alone: it has no derivative per number")
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
        if not self.activation.elementwise or any(isinstance(value, Tensor) for _, value in self.parameters):
            return -math.inf, math.inf  # PReLU: the slope is learned, not known
        return _flat_sides(self)


@functools.lru_cache(maxsize=256)
def _flat_sides(bound: BoundActivation, reach: float = 100.0, points: int = 20_001) -> tuple[float, float]:
    with torch_functions.unseen():
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
