"""AlphaDropout: dropout that keeps mean and variance where SELU has its fixed point."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, fx, nn

from lightning_tricks._compat.torch_tensors import transforms_are_active

__all__ = ["AlphaDropout", "FeatureAlphaDropout", "alpha_dropout", "matched_p"]

# What SELU tends to for very negative input, -scale * alpha: the value a dropped unit takes.
SELU_FLOOR = -1.7580993408473768480
_WORDS = 1 << 16
# From this many elements the 16-bit draw wins over torch's Bernoulli draw (tests/benchmarks/dropout.py).
_LARGE = 1 << 14


def alpha_dropout(
    x: Tensor,
    p: float,
    training: bool = True,
    *,
    mean: float = 0.0,
    variance: float = 1.0,
    channels: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    r"""Sets a share p of the elements to SELU's lower limit and rescales all, so that mean and variance stay.

    With d a Bernoulli(q) draw, q = 1 - p, and :math:`\alpha' = -1.7581`:

    .. math:: y = a (x d + \alpha' (1 - d)) + b,\quad
        a = \sqrt{\nu / (q \nu + q p (\alpha' - \mu)^2)},\quad b = \mu - a (q \mu + p \alpha')

    (Klambauer et al. 2017, section "New dropout technique", for a fixed point of any mean mu and variance nu; at (0, 1)
    this is torch's formula.) What is dropped takes its value whatever it was, NaN and Inf too. The moments are kept,
    the signal is not: of the squared correlation with the input (1-p) / (1 + 3.0909 p) is left, so that p = 0.05 is as
    noisy as ordinary dropout of 0.18. Over many layers that multiplies: leave it at 0 in deep stacks.

    Args:
        x: The input, any shape.
        p: The probability of being dropped, in [0, 1).
        training: Without it the input is returned.
        mean: mu, the mean of x that is kept.
        variance: nu, the variance of x that is kept.
        channels: Drop whole channels, (N, C, ...) with at least 3 dimensions.
        generator: The source of random numbers; None: torch's global one.

    Raises:
        TypeError: x is not floating point.
        ValueError: p outside [0, 1), a variance that is not positive, or ``channels`` on fewer than 3 dimensions.

    >>> y = alpha_dropout(torch.randn(1000, 1000), 0.1)
    >>> round(abs(float(y.mean())), 1), round(float(y.var()), 1)
    (0.0, 1.0)
    """
    _check(p, variance)
    if not x.is_floating_point():
        raise TypeError(f"alpha dropout needs floating-point input, not {x.dtype}: it moves what it keeps")
    if channels:
        x = has_channels(x)
    if not training or p == 0.0:
        return x
    dropped, p = _draw(x, p, channels, generator)
    a, b = _affine(p, mean, variance)
    # The backward needs the mask only: one byte an element.
    return x.mul(a).add_(b).masked_fill_(dropped, a * SELU_FLOOR + b)


@fx.wrap
def has_channels(x: Tensor) -> Tensor:
    """The input, if it has channels to be dropped as a whole; one operation in a traced graph."""
    if x.dim() < 3:
        raise ValueError(
            f"dropping channels needs (N, C, ...) with at least 3 dimensions, not shape {list(x.shape)}; "
            "for (N, C) use AlphaDropout"
        )
    return x


def matched_p(p: float) -> float:
    """The p of alpha dropout that is as noisy as ordinary dropout of p: it keeps 1 - p of the squared correlation.

    Solves (1 - x) / (1 + 3.0909 x) = 1 - p, where 3.0909 is the square of SELU's lower limit.

    >>> round(matched_p(0.18), 3)
    0.051
    """
    _check(p, 1.0)
    return p / (1.0 + SELU_FLOOR**2 * (1.0 - p))


def _affine(p: float, mean: float, variance: float) -> tuple[float, float]:
    q = 1.0 - p
    a = math.sqrt(variance / (q * variance + q * p * (SELU_FLOOR - mean) ** 2))
    return a, mean - a * (q * mean + p * SELU_FLOOR)


def _is_small(x: Tensor, p: float, channels: bool) -> bool:
    # The draw by words knows p in steps of 1/65536: where that is coarser than 1 %, the other one is taken. A compiler
    # fuses that one, and vmap knows how to draw it for every row.
    coarse = p * _WORDS < 100 or (1 - p) * _WORDS < 100
    return channels or x.numel() < _LARGE or coarse or torch.compiler.is_compiling() or transforms_are_active()


def _draw(x: Tensor, p: float, channels: bool, generator: Generator | None) -> tuple[Tensor, float]:
    """A boolean mask of what is dropped, and the probability it was drawn with."""
    if _is_small(x, p, channels):
        shape = x.shape[:2] + (1,) * (x.ndim - 2) if channels else x.shape
        if generator is None:  # the compiler takes no generator, not even None
            return torch.rand(shape, device=x.device) < p, p
        return torch.rand(shape, generator=generator, device=x.device) < p, p
    # Four 16-bit words from each 64-bit integer: a quarter of the draws, and the comparison runs over 2 bytes.
    threshold = round(p * _WORDS)
    integers = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
    words = integers.random_(-(2**63), None, generator=generator).view(torch.int16)[: x.numel()]
    return (words < threshold - _WORDS // 2).view(x.shape), threshold / _WORDS


def _check(p: float, variance: float) -> None:
    if not 0.0 <= p < 1.0:
        raise ValueError(f"p, the probability of being dropped, has to be in [0, 1), not {p}")
    if not (math.isfinite(variance) and variance > 0.0):
        raise ValueError(f"variance has to be positive and finite, not {variance}")


class AlphaDropout(nn.Module):
    """``alpha_dropout`` as a module: dropout for SELU networks, active in training mode only.

    Args:
        p: The probability of being dropped, in [0, 1). Of the squared correlation with the input
            (1-p) / (1 + 3.0909 p) is left: 0.05 is as noisy as ``nn.Dropout(0.18)``.
        mean: The mean that is kept.
        variance: The variance that is kept.

    Raises:
        ValueError: p outside [0, 1), or a variance that is not positive.

    >>> AlphaDropout(0.05)
    AlphaDropout(p=0.05)
    >>> AlphaDropout(0.05, variance=1.5).eval()(torch.ones(2))
    tensor([1., 1.])
    """

    _channels = False

    def __init__(self, p: float = 0.05, *, mean: float = 0.0, variance: float = 1.0) -> None:
        super().__init__()
        _check(p, variance)
        self.p = p
        self.mean = mean
        self.variance = variance

    def forward(self, x: Tensor) -> Tensor:
        return self._drop(x) if self.training and self.p > 0.0 else x

    @torch.jit.unused
    def _drop(self, x):
        # type: (Tensor) -> Tensor
        """In training; ``torch.jit.script`` leaves it out and raises if a scripted model gets here."""
        return alpha_dropout(x, self.p, True, mean=self.mean, variance=self.variance, channels=self._channels)

    def extra_repr(self) -> str:
        moments = "" if (self.mean, self.variance) == (0.0, 1.0) else f", mean={self.mean}, variance={self.variance}"
        return f"p={self.p:.4g}{moments}"


class FeatureAlphaDropout(AlphaDropout):
    """``AlphaDropout`` of whole channels, (N, C, ...): neighbouring pixels say the same, so they are dropped together.

    Args and errors as in ``AlphaDropout``. Unlike torch's, it refuses (N, C), where it would silently drop elements.

    >>> y = FeatureAlphaDropout(0.5)(torch.zeros(1, 8, 4, 4))
    >>> bool((y == y[:, :, :1, :1]).all())
    True
    """

    _channels = True

    def forward(self, x: Tensor) -> Tensor:
        x = has_channels(x)
        return self._drop(x) if self.training and self.p > 0.0 else x
