"""The moment map of SELU in closed form: Klambauer et al. 2017, equations 4 and 5."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_tricks.init.moments import Moments

__all__ = ["SELU_ALPHA", "SELU_SCALE", "selu_fixed_point", "selu_jacobian", "selu_moments"]

SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717


def selu_moments(
    mean: Tensor | float, variance: Tensor | float, omega: Tensor | float = 0.0, tau: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:
    r"""Mean and variance after a SELU layer whose weights have sum omega and summed squares tau.

    The pre-activation is N(mean omega, variance tau); with m and v for the two, lambda = 1.0507, alpha = 1.6733:

    .. math::
        \tilde\mu = \tfrac{\lambda}{2} \Big( m\, \mathrm{erf}\tfrac{m}{\sqrt{2v}}
        + \alpha e^{m + v/2} \mathrm{erfc}\tfrac{m+v}{\sqrt{2v}} - \alpha\, \mathrm{erfc}\tfrac{m}{\sqrt{2v}}
        + \sqrt{\tfrac{2v}{\pi}} e^{-m^2/(2v)} + m \Big)

    and the second moment of eq. 5 likewise. Differentiable; computed in float64.

    Args:
        mean: Mean of the layer's input; all four arguments broadcast.
        variance: Variance of the layer's input, positive.
        omega: Sum of a unit's weights.
        tau: Sum of a unit's squared weights.

    >>> mean, variance = selu_moments(0.0, 1.0)
    >>> bool(mean.abs() < 1e-12), bool((variance - 1).abs() < 1e-12)
    (True, True)
    """
    mean, variance, omega, tau = (torch.as_tensor(t, dtype=torch.float64) for t in (mean, variance, omega, tau))
    m, v = mean * omega, variance * tau
    root = torch.sqrt(2.0 * v)
    gauss = torch.exp(-m * m / (2.0 * v))
    first = _exp_erfc(m, v, 1)
    second = _exp_erfc(m, v, 2)
    below = torch.erfc(m / root)
    new_mean = 0.5 * SELU_SCALE * (m * (2.0 - below) + SELU_ALPHA * (first - below) + root * gauss / math.sqrt(math.pi))
    new_second = (
        0.5
        * SELU_SCALE**2
        * (
            (m * m + v) * (2.0 - below)
            + SELU_ALPHA**2 * (second - 2.0 * first + below)
            + m * root * gauss / math.sqrt(math.pi)
        )
    )
    return new_mean, new_second - new_mean**2


def selu_jacobian(
    mean: Tensor | float, variance: Tensor | float, omega: Tensor | float = 0.0, tau: Tensor | float = 1.0
) -> Tensor:
    """The derivative of ``selu_moments`` by (mean, variance), as (..., 2, 2): rows are new mean and new variance.

    Its largest singular value below 1 makes the map a contraction (Klambauer et al. 2017, theorem 1).

    >>> [[round(float(x), 6) for x in row] for row in selu_jacobian(0.0, 1.0)]
    [[0.0, 0.088835], [0.0, 0.782648]]
    """
    tensors = torch.broadcast_tensors(*(torch.as_tensor(t, dtype=torch.float64) for t in (mean, variance, omega, tau)))
    with torch.enable_grad():
        leaves = [t.detach().clone().requires_grad_() for t in tensors[:2]]
        outputs = selu_moments(leaves[0], leaves[1], tensors[2].detach(), tensors[3].detach())
        rows = [torch.autograd.grad(output.sum(), leaves, retain_graph=True) for output in outputs]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def selu_fixed_point(omega: float = 0.0, tau: float = 1.0) -> Moments:
    """The mean and variance to which SELU layers with such weights settle.

    For omega in [-0.1, 0.1] and tau in [0.95, 1.1] there is exactly one (Klambauer et al. 2017, theorem 1).

    Raises:
        ValueError: No fixed point is reached: the variance dies out or grows without end.

    >>> selu_fixed_point(omega=0.05, tau=1.05)
    Moments(mean=0.0..., variance=1.1...)
    """
    mean, variance = torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    for _ in range(10_000):
        new_mean, new_variance = selu_moments(mean, variance, omega, tau)
        change = max(float((new_mean - mean).abs()), float((new_variance - variance).abs()))
        mean, variance = new_mean, new_variance
        if change <= 1e-15 * max(1.0, float(variance)):
            return Moments(float(mean), float(variance))
        if not 1e-6 < float(variance) < 1e6:
            break
    raise ValueError(f"SELU has no fixed point at omega={omega}, tau={tau}: the variance goes to {float(variance):.3g}")


def _exp_erfc(m: Tensor, v: Tensor, k: int) -> Tensor:
    """exp(k m + k^2 v / 2) erfc((m + k v) / sqrt(2 v)), where neither factor may overflow."""
    argument = (m + k * v) / torch.sqrt(2.0 * v)
    positive = argument > 0
    # For a positive argument the two exponentials cancel to exp(-m^2 / 2v); else the exponent is itself below 0.
    scaled = torch.exp(-m * m / (2.0 * v)) * torch.special.erfcx(torch.where(positive, argument, 0.0))
    exponent = torch.where(positive, 0.0, k * m + 0.5 * k * k * v)
    return torch.where(positive, scaled, torch.exp(exponent) * torch.erfc(argument))
