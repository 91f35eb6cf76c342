"""variance_scaling_ and its named presets: random weights whose size follows from the fans."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor, nn

from lightning_tricks.init.fans import Fans, fans

__all__ = [
    "glorot_normal_",
    "glorot_uniform_",
    "he_normal_",
    "he_uniform_",
    "lecun_normal_",
    "lecun_uniform_",
    "variance_scaling_",
]

Weight = TypeVar("Weight", bound=Tensor)  # a Parameter comes back as a Parameter

MODES = ("fan_in", "fan_out", "fan_avg", "fan_geo_avg")
DISTRIBUTIONS = ("truncated_normal", "normal", "uniform")
# The standard deviation of a unit normal cut off at two of its standard deviations:
# sqrt(1 - 2 c phi(c) / (2 Phi(c) - 1)) at c = 2.
TRUNCATED_STD = 0.87962566103423978


@torch.no_grad()
def variance_scaling_(
    tensor: Weight,
    scale: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "truncated_normal",
    *,
    fan: Fans | float | None = None,
    generator: Generator | None = None,
) -> Weight:
    r"""Fills a weight with random numbers of mean 0 and variance scale / fan.

    .. math:: \mathrm{Var}(w) = s / n,\quad n = n_{in},\ n_{out},\ (n_{in} + n_{out})/2,\ \sqrt{n_{in} n_{out}}

    The truncated normal never leaves two standard deviations of the normal that is cut, which is made wider by
    1 / 0.87962566 so that the variance after the cut is the one asked for. The general form of Glorot & Bengio 2010
    (eq. 16) and He et al. 2015 (eq. 10).

    Args:
        tensor: The weight, (out, in, *kernel), of any floating dtype; half precision is drawn in float32.
        scale: s; 1 keeps the variance of linear units and of SELU, 2 that of ReLU.
        mode: ``"fan_in"``, ``"fan_out"``, ``"fan_avg"`` or ``"fan_geo_avg"``: which n.
        distribution: ``"truncated_normal"``, ``"normal"`` or ``"uniform"``.
        fan: What the tensor cannot know (groups, transposed layout, several matrices in one): the ``Fans`` from
            ``fans(module)``, or n itself. None: from the tensor's shape.
        generator: The source of random numbers; None: torch's global one.

    Returns:
        The tensor.

    Raises:
        ValueError: An unknown mode or distribution, scale or fan not positive, a tensor with fewer than 2 dimensions
            and no fan, a lazy parameter, or a tensor on the meta device.
        TypeError: Not a tensor (of a layer, pass ``layer.weight``), or one that is not floating point.

    >>> w = variance_scaling_(torch.empty(256, 1024), scale=2.0, generator=torch.Generator().manual_seed(0))
    >>> round(float(w.var() * 1024), 2)
    2.0
    """
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"unknown distribution {distribution!r}; known are {', '.join(DISTRIBUTIONS)}")
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale has to be positive and finite, not {scale}")
    check_tensor(tensor)
    n = terms(tensor, mode, fan)
    check_fillable(tensor)
    if tensor.numel() == 0:
        return tensor
    _fill(tensor, math.sqrt(scale / n), distribution, generator)
    return tensor


def lecun_normal_(tensor: Weight, *, fan: Fans | float | None = None, generator: Generator | None = None) -> Weight:
    """Variance 1 / fan_in, truncated normal: for SELU and linear units (LeCun et al. 1998, eq. 16).

    Args, returns and errors as in ``variance_scaling_``.

    >>> round(float(lecun_normal_(torch.empty(400, 100)).std()), 2)
    0.1
    """
    return variance_scaling_(tensor, 1.0, "fan_in", "truncated_normal", fan=fan, generator=generator)


def lecun_uniform_(tensor: Weight, *, fan: Fans | float | None = None, generator: Generator | None = None) -> Weight:
    """Variance 1 / fan_in, uniform on +-sqrt(3 / fan_in) (LeCun et al. 1998, eq. 16).

    Args, returns and errors as in ``variance_scaling_``.

    >>> bool(lecun_uniform_(torch.empty(400, 300)).abs().max() <= 0.1)
    True
    """
    return variance_scaling_(tensor, 1.0, "fan_in", "uniform", fan=fan, generator=generator)


def he_normal_(tensor: Weight, *, fan: Fans | float | None = None, generator: Generator | None = None) -> Weight:
    """Variance 2 / fan_in, truncated normal: for ReLU (He et al. 2015, eq. 10).

    Args, returns and errors as in ``variance_scaling_``.

    >>> round(float(he_normal_(torch.empty(400, 200)).std()), 2)
    0.1
    """
    return variance_scaling_(tensor, 2.0, "fan_in", "truncated_normal", fan=fan, generator=generator)


def he_uniform_(tensor: Weight, *, fan: Fans | float | None = None, generator: Generator | None = None) -> Weight:
    """Variance 2 / fan_in, uniform on +-sqrt(6 / fan_in) (He et al. 2015, eq. 10).

    Args, returns and errors as in ``variance_scaling_``.

    >>> bool(he_uniform_(torch.empty(400, 600)).abs().max() <= 0.1)
    True
    """
    return variance_scaling_(tensor, 2.0, "fan_in", "uniform", fan=fan, generator=generator)


def glorot_normal_(tensor: Weight, *, fan: Fans | float | None = None, generator: Generator | None = None) -> Weight:
    """Variance 2 / (fan_in + fan_out), truncated normal: for tanh (Glorot & Bengio 2010, eq. 12).

    Args, returns and errors as in ``variance_scaling_``.

    >>> round(float(glorot_normal_(torch.empty(150, 50)).std()), 2)
    0.1
    """
    return variance_scaling_(tensor, 1.0, "fan_avg", "truncated_normal", fan=fan, generator=generator)


def glorot_uniform_(tensor: Weight, *, fan: Fans | float | None = None, generator: Generator | None = None) -> Weight:
    """Variance 2 / (fan_in + fan_out), uniform (Glorot & Bengio 2010, eq. 16).

    Args, returns and errors as in ``variance_scaling_``.

    >>> bool(glorot_uniform_(torch.empty(400, 200)).abs().max() <= 0.1)
    True
    """
    return variance_scaling_(tensor, 1.0, "fan_avg", "uniform", fan=fan, generator=generator)


def terms(tensor: Tensor, mode: str, fan: Fans | float | None) -> float:
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; known are {', '.join(MODES)}")
    if fan is None or isinstance(fan, tuple):
        fan_in, fan_out = fans(tensor) if fan is None else fan
        n = {
            "fan_in": fan_in,
            "fan_out": fan_out,
            "fan_avg": (fan_in + fan_out) / 2,
            "fan_geo_avg": math.sqrt(fan_in * fan_out),
        }[mode]
    else:
        n = fan
    if tensor.numel() and not (math.isfinite(n) and n > 0):
        raise ValueError(f"fan has to be positive and finite, not {n}")
    return n if n > 0 else 1.0


def check_tensor(tensor: Any) -> None:
    if isinstance(tensor, nn.Module):
        raise TypeError(f"tensor has to be a weight, not the module {type(tensor).__name__}: pass layer.weight")
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor has to be a torch.Tensor, such as layer.weight, not {type(tensor).__name__}")


def check_fillable(tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise TypeError(f"weights have to be floating point, not {tensor.dtype}")
    if tensor.is_meta:
        raise ValueError(
            "a tensor on the meta device holds no numbers to initialise: give it storage with "
            "model.to_empty(device=...) first, or call initialize(model), which acts when reset_parameters runs"
        )


def working_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _fill(tensor: Tensor, std: float, distribution: str, generator: Generator | None) -> None:
    working = tensor if tensor.dtype == working_dtype(tensor) else tensor.new_empty(tensor.shape, dtype=torch.float32)
    bound = math.inf
    if distribution == "normal":
        working.normal_(0.0, std, generator=generator)
    elif distribution == "uniform":
        bound = math.sqrt(3.0) * std
        working.uniform_(-bound, bound, generator=generator)
    else:
        # By the inverse of the distribution function: one uniform draw per weight and nothing to reject.
        parent = std / TRUNCATED_STD
        bound = 2.0 * parent
        edge = math.erf(math.sqrt(2.0))
        working.uniform_(-edge, edge, generator=generator).erfinv_().mul_(math.sqrt(2.0) * parent)
    if working is not tensor:
        tensor.copy_(working)
    if math.isfinite(bound):
        bound = _rounded_down(bound, tensor)
        tensor.clamp_(-bound, bound)


def _rounded_down(bound: float, like: Tensor) -> float:
    """A number of the tensor's dtype just not above ``bound``, so that rounding cannot pass the edge."""
    value = torch.tensor(bound, dtype=like.dtype)
    if value.double() > bound:
        value = torch.tensor(bound * (1.0 - torch.finfo(like.dtype).eps), dtype=like.dtype)
    return float(value)
