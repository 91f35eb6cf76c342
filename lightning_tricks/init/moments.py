"""How mean and variance pass through an activation, which gain keeps them, and whether a deviation dies out.

The pre-activation of a wide layer is close to Gaussian. Layer after layer only the second moment q of the activations
is handed on: q' = E g(gain sqrt(q) z)^2 with z ~ N(0, 1). A network starts well where q = 1 is a fixed point of this
map, and stays well where that fixed point attracts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lightning_tricks.init.quadrature import ActivationLike, ScalarFunction, gaussian_nodes, scalar_function

__all__ = ["FixedPoint", "Moments", "Stability", "fixed_points", "gain", "moments", "one_step_gain", "stability"]

_MARGIN = 1e-9  # a slope this close to 1 neither attracts nor repels


class Moments(NamedTuple):
    """Mean and variance."""

    mean: float
    variance: float

    @property
    def second_moment(self) -> float:
        return self.variance + self.mean**2


class FixedPoint(NamedTuple):
    """A second moment that the map returns, and the map's slope there."""

    second_moment: float
    slope: float

    @property
    def verdict(self) -> str:
        """``"STABLE"`` (slope below 1: deviations die out), ``"UNSTABLE"`` or ``"MARGINAL"``."""
        return verdict(self.slope)


class Stability(NamedTuple):
    """What a gain does to small deviations (slope) and to gradients (chi), layer by layer."""

    gain: float
    second_moment: float
    slope: float
    chi: float

    @property
    def verdict(self) -> str:
        """``"STABLE"``, ``"UNSTABLE"`` or ``"MARGINAL"``, by the slope."""
        return verdict(self.slope)


def verdict(slope: float) -> str:
    """STABLE where a deviation shrinks, UNSTABLE where it grows, MARGINAL where it stays."""
    if abs(abs(slope) - 1.0) <= _MARGIN:
        return "MARGINAL"
    return "STABLE" if abs(slope) < 1.0 else "UNSTABLE"


def moments(
    activation: ActivationLike, mean: float = 0.0, variance: float = 1.0, *, kinks: Sequence[float] = ()
) -> Moments:
    r"""Mean and variance of g(a) for a Gaussian pre-activation a.

    .. math:: E[g(a)],\ \mathrm{Var}[g(a)],\quad a \sim N(\mu, \sigma^2)

    By piecewise Gauss-Legendre quadrature, right to about 1e-14; for SELU this is eq. 4 and 5 of Klambauer et al. 2017,
    of which ``lt.init.selu_moments`` is the closed form.

    Args:
        activation: A registry name (``"gelu"``), a torch function, a module, or any elementwise callable.
        mean: mu.
        variance: sigma squared.
        kinks: Where g is not smooth, if known; found otherwise.

    Raises:
        ValueError: An unknown name, a negative or infinite variance, or a function that is not smooth in pieces.
        TypeError: Not an elementwise function.

    >>> m = moments("selu")
    >>> abs(m.mean) < 1e-12, abs(m.variance - 1) < 1e-12
    (True, True)
    >>> round(moments("relu").mean, 6)  # 1 / sqrt(2 pi)
    0.398942
    """
    function = scalar_function(activation, kinks)
    nodes, weights = gaussian_nodes(function, mean, variance)
    values = function(nodes)
    average = float(weights @ values)
    return Moments(average, float(weights @ (values - average).square()))


def gain(activation: ActivationLike, *, kinks: Sequence[float] = ()) -> float:
    r"""The factor on weights of variance 1 / fan_in that keeps the second moment of the activations at 1.

    .. math:: E\, g(\gamma z)^2 = 1,\quad z \sim N(0, 1)

    The smallest such factor. (torch's ``calculate_gain`` says 3/4 for selu, with which a signal dies, and knows no
    gelu, silu or mish.) Whether a deviation from 1 dies out is another question: see ``stability``.

    Args:
        activation: As for ``moments``.
        kinks: As for ``moments``.

    Raises:
        ValueError: No factor keeps it, as for tanh and the logistic, whose output stays below 1.

    >>> round(gain("relu") ** 2, 12), round(gain("selu"), 12), round(gain("gelu"), 5)
    (2.0, 1.0, 1.46801)
    """
    function = scalar_function(activation, kinks)

    def excess(log_factor: float) -> float:
        return _second_moment(function, math.exp(2 * log_factor)) - 1.0

    steps = [math.log(10.0) * k / 8 for k in range(-16, 25)]
    low = steps[0]
    largest = excess(low)
    if largest < 0:
        for high in steps[1:]:
            value = excess(high)
            if value >= 0:
                return math.exp(_root(excess, low, high))
            low, largest = high, max(largest, value)
    side = f"stays at or below {largest + 1.0:.4g}" if largest < 0 else f"is {largest + 1.0:.4g} even for tiny weights"
    raise ValueError(
        f"no gain keeps the second moment of {function.name} at 1: it {side}; one_step_gain({function.name!r}) keeps "
        "one layer's, and fixed_points tells where the network settles with it"
    )


def one_step_gain(activation: ActivationLike, *, kinks: Sequence[float] = ()) -> float:
    r"""The often quoted factor 1 / sqrt(E g(z)^2): it keeps the second moment over one layer only.

    With weights that much larger, a pre-activation of variance 1 gives the next one variance 1. The layer after that
    sees g at another scale unless g is homogeneous: GELU at depth 32 ends at a second moment of 111.

    Args:
        activation: As for ``moments``.
        kinks: As for ``moments``.

    Raises:
        ValueError: g is zero everywhere.

    >>> round(one_step_gain("tanh"), 4)
    1.5925
    """
    function = scalar_function(activation, kinks)
    second = _second_moment(function, 1.0)
    if second <= 0:
        raise ValueError(f"{function.name} is zero on every input; no gain can keep its second moment")
    return 1.0 / math.sqrt(second)


def fixed_points(
    activation: ActivationLike, gain: float = 1.0, *, bias_variance: float = 0.0, kinks: Sequence[float] = ()
) -> list[FixedPoint]:
    r"""The second moments q > 0 that the map returns, with its slope there, in rising order.

    .. math:: q = E\, g(\sqrt{\gamma^2 q + \sigma_b^2}\, z)^2

    Searched between 1e-8 and 1e8. Homogeneous activations (ReLU, linear) have none, or all: with the gain that keeps
    one q they keep every q, and the list is empty.

    Args:
        activation: As for ``moments``.
        gain: gamma, the factor on weights of variance 1 / fan_in.
        bias_variance: Variance of the biases.
        kinks: As for ``moments``.

    >>> fixed_points("tanh")  # with gain 1 a signal dies out
    []
    >>> [(round(p.second_moment, 3), p.verdict) for p in fixed_points("tanh", gain=one_step_gain("tanh"))]
    [(0.394, 'STABLE')]
    """
    function = scalar_function(activation, kinks)

    def excess(log_q: float) -> float:
        q = math.exp(log_q)
        return _second_moment(function, gain**2 * q + bias_variance) / q - 1.0

    grid = [math.log(10.0) * k / 8 for k in range(-64, 65)]
    values = [excess(x) for x in grid]
    found: list[FixedPoint] = []
    for k, (x, value) in enumerate(zip(grid, values, strict=True)):
        following = values[k + 1] if k + 1 < len(values) else math.inf
        isolated = abs(following) > _MARGIN and (k == 0 or abs(values[k - 1]) > _MARGIN)
        if abs(value) <= 1e-13 and isolated:
            q = math.exp(x)
        elif math.isfinite(following) and min(abs(value), abs(following)) > 1e-13 and (value > 0) != (following > 0):
            q = math.exp(_root(excess, x, grid[k + 1]))
        else:
            continue
        found.append(FixedPoint(q, _slope(function, gain, q, bias_variance)))
    return found


def stability(activation: ActivationLike, gain: float | None = None, *, kinks: Sequence[float] = ()) -> Stability:
    r"""Whether a deviation of the second moment dies out from layer to layer, and how gradients grow.

    .. math:: \mathrm{slope} = \partial q' / \partial q,\quad \chi = \gamma^2 E\, g'(\gamma \sqrt{q} z)^2

    A slope below 1 is stable. chi is the factor on the second moment of the gradients per layer (chi_1 of Schoenholz
    et al. 2017): SELU's is 1.0716, so gradients grow 1.035 a layer, threefold over 32 layers. The gain that keeps q = 1
    is unstable for GELU, SiLU, Mish and Hardswish, stable for SELU and ELU.

    Args:
        activation: As for ``moments``.
        gain: The factor on weights of variance 1 / fan_in. None: ``gain(activation)``, at q = 1. A number: at the
            fixed point which that gain has.
        kinks: As for ``moments``.

    Raises:
        ValueError: There is no such gain, or the given one has no fixed point.

    >>> s = stability("selu")
    >>> round(s.slope, 6), round(s.chi, 4), s.verdict
    (0.782648, 1.0716, 'STABLE')
    >>> stability("gelu").verdict
    'UNSTABLE'
    """
    function = scalar_function(activation, kinks)
    q = 1.0
    if gain is None:
        gain = _gain(function)
    elif abs(_second_moment(function, gain**2) - 1.0) > 1e-12:
        points = fixed_points(function, gain)
        attracting = [point for point in points if point.slope < 1] or points
        if not attracting:
            raise ValueError(f"{function.name} with gain {gain} has no fixed point: the signal dies out or explodes")
        q = attracting[0].second_moment
    nodes, weights = gaussian_nodes(function, 0.0, gain**2 * q)
    chi = gain**2 * float(weights @ function.derivative(nodes).square())
    return Stability(gain, q, _slope(function, gain, q), chi)


_gain: Callable[..., float] = gain  # the parameter of the same name hides the function


def second_moment_slope(function: ScalarFunction, variance: float, mean: float = 0.0) -> float:
    r"""d E g(a)^2 / d E a^2 where a becomes larger as a whole: its mean too, as what comes from a larger input does.

    Without a derivative of g: E g^2 (z^2 - 1 + z mean / std) / (2 E a^2) (Stein's lemma).
    """
    nodes, weights = gaussian_nodes(function, mean, variance)
    off = nodes - mean
    larger = off.square() / variance - 1.0 + off * (mean / variance)
    return float((weights * function(nodes).square()) @ larger) / (2.0 * (variance + mean**2))


def _second_moment(function: ScalarFunction, variance: float) -> float:
    nodes, weights = gaussian_nodes(function, 0.0, variance)
    return float(weights @ function(nodes).square())


def _slope(function: ScalarFunction, factor: float, q: float, bias_variance: float = 0.0) -> float:
    return factor**2 * second_moment_slope(function, factor**2 * q + bias_variance)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Bisection to the last bit: the brackets here are narrow and every value is cheap."""
    rising = function(low) < 0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if (function(middle) > 0) == rising:
            high = middle
        else:
            low = middle
    return 0.5 * (low + high)
