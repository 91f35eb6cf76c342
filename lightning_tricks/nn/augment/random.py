"""Random movements and noise: every sample of a batch has a draw of its own."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from lightning_tricks.nn.augment.warp import PADDING, AffineWarp, ElasticWarp, Warp

__all__ = ["AdditiveNoise", "Augmentation", "ElasticDeformation", "RandomAffine", "affine_warp", "elastic_warp"]


def affine_warp(degrees: Tensor, shift: Tensor, scale: Tensor, shear: Tensor, flip: Tensor | None = None) -> AffineWarp:
    r"""The affine map of torchvision's ``functional.affine``, for B samples at once; a flip comes first.

    .. math:: M = s R(\theta - \beta_y) \begin{pmatrix} 1 & -\tan\beta_x \\ 0 & 1 \end{pmatrix} / \cos\beta_y
        \text{ with the lower right as there}

    Args:
        degrees: (B,) rotation about the centre, clockwise on the screen.
        shift: (B, 2) in shares of width and height.
        scale: (B,).
        shear: (B, 2) in degrees, along x and y.
        flip: (B,) whether left and right are exchanged.
    """
    angle, (sx, sy) = torch.deg2rad(degrees), torch.deg2rad(shear).unbind(1)
    cos, sin = torch.cos(angle - sy) / torch.cos(sy), torch.sin(angle - sy) / torch.cos(sy)
    a, c = cos, sin
    b, d = -cos * torch.tan(sx) - torch.sin(angle), -sin * torch.tan(sx) + torch.cos(angle)
    if flip is not None:
        sign = torch.where(flip, -1.0, 1.0).to(a)
        a, c = a * sign, c * sign
    matrix = torch.stack([a, b, c, d], 1).view(-1, 2, 2) * scale[:, None, None]
    return AffineWarp(matrix, shift)


def elastic_warp(noise: Tensor, alpha: float, sigma: float) -> ElasticWarp:
    r"""Displacements: noise, smoothed by a Gaussian and scaled (Simard, Steinkraus & Platt 2003, section 2).

    .. math:: d = \alpha \, (G_\sigma * u), \quad u \sim U(-1, 1)

    far from the border of standard deviation :math:`\alpha / (2 \sigma \sqrt{3 \pi})`, in pixels. The Gaussian is that
    of ``scipy.ndimage.gaussian_filter(mode="constant")``: cut off at 4 sigma, with zeros around the image.

    Args:
        noise: (B, 2, H, W) in [-1, 1].
        alpha: Scale, in pixels.
        sigma: Of the Gaussian, in pixels.
    """
    rows, columns = (_gaussian(side, sigma, noise) for side in noise.shape[-2:])
    return ElasticWarp(alpha * (rows @ noise @ columns))


def _gaussian(side: int, sigma: float, like: Tensor) -> Tensor:
    """(side, side): the convolution along one axis as a product, faster than a kernel nearly as large as the image."""
    radius = int(4 * sigma + 0.5)
    distance = torch.arange(side, device=like.device, dtype=like.dtype)
    distance = (distance[:, None] - distance).abs()
    weights = torch.where(distance <= radius, torch.exp(-0.5 * (distance / sigma) ** 2), 0.0)
    total = 1 + 2 * sum(math.exp(-0.5 * (step / sigma) ** 2) for step in range(1, radius + 1))
    return weights / total


def _from(generator: Generator | None) -> dict[str, Any]:
    """The argument that names it: exported with a free batch size, torch's draws take none, not even None."""
    return {} if generator is None else {"generator": generator}


class Augmentation(nn.Module):
    """What the modules for augmentation share: off in evaluation, a share ``p`` of the samples, one generator.

    Args:
        p: The share of samples that are augmented, in [0, 1].
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"p, the share of samples that are augmented, has to be in [0, 1], not {p}")
        self.p = p

    def forward(self, x: Tensor, *, generator: Generator | None = None) -> Tensor:
        """The batch, each sample with a draw of its own; in evaluation as it came."""
        self.check(x)
        return self.augment(x, generator) if self.training and self.p > 0 else x

    def check(self, x: Tensor) -> None:
        """Raises where the input cannot be augmented."""
        if not x.is_floating_point():
            raise TypeError(f"{type(self).__name__} needs floating-point input, not {x.dtype}: x.float() / 255")

    @abstractmethod
    def augment(self, x: Tensor, generator: Generator | None) -> Tensor:
        """The augmented batch."""

    def chosen(self, x: Tensor, generator: Generator | None) -> Tensor | None:
        """(B,) which samples are augmented; None for all."""
        if self.p == 1.0:
            return None
        return torch.rand(x.shape[0], **_from(generator), device=x.device) < self.p


class Movement(Augmentation):
    """An augmentation that moves pixels, and can move what belongs to them along."""

    def __init__(self, p: float, padding: str) -> None:
        super().__init__(p)
        if padding not in PADDING:
            raise ValueError(f"padding has to be one of {', '.join(PADDING)}, not {padding!r}")
        self.padding = padding

    @abstractmethod
    def draw(self, x: Tensor, generator: Generator | None = None) -> Warp:
        """A movement for every sample of (B, C, H, W), for ``images``, ``masks``, ``points`` and ``boxes`` alike."""

    def check(self, x: Tensor) -> None:
        super().check(x)
        if x.dim() != 4:
            raise ValueError(f"{type(self).__name__} needs images (B, C, H, W), not shape {list(x.shape)}")

    def augment(self, x: Tensor, generator: Generator | None) -> Tensor:
        return self.draw(x, generator).images(x, padding=self.padding)


class RandomAffine(Movement):
    """Rotates, shifts, scales, shears and flips every image of a batch, each by its own draw.

    All are uniform in their range; torchvision's ``functional.affine`` of the same numbers gives the same image. One
    resampling for all of them, on the batch's device, in any floating dtype. Wraps :func:`affine_warp`.

    Args:
        degrees: Rotation in [-degrees, degrees].
        translate: Shift along each axis in [-translate, translate] of its side.
        scale: From the first to the second.
        shear: Along each axis in [-shear, shear] degrees.
        flip: The probability that left and right are exchanged.
        p: The share of samples that are augmented.
        padding: What is outside of the image: "zeros", "border" or "reflection".

    Raises:
        ValueError: A range that is negative or empty, a probability outside [0, 1], input that is not (B, C, H, W).
        TypeError: Input that is not floating point.

    >>> images = torch.randn(8, 3, 32, 32)
    >>> augment, seed = RandomAffine(flip=0.5), torch.Generator().manual_seed
    >>> torch.equal(augment(images, generator=seed(1)), augment(images, generator=seed(1)))
    True
    >>> augment.eval()(images) is images
    True
    """

    def __init__(
        self,
        degrees: float = 10.0,
        translate: float = 0.1,
        scale: tuple[float, float] = (0.9, 1.1),
        shear: float = 5.0,
        *,
        flip: float = 0.0,
        p: float = 1.0,
        padding: str = "zeros",
    ) -> None:
        super().__init__(p, padding)
        for name, value in (("degrees", degrees), ("translate", translate), ("shear", shear)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} has to be 0 or more, not {value}")
        if shear >= 90:
            raise ValueError(f"shear has to be under 90 degrees, not {shear}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale has to be (lowest, highest) with 0 < lowest <= highest, not {scale}")
        if not 0.0 <= flip <= 1.0:
            raise ValueError(f"flip, a probability, has to be in [0, 1], not {flip}")
        self.degrees, self.translate, self.shear, self.flip = degrees, translate, shear, flip
        self.scale = (float(scale[0]), float(scale[1]))

    def draw(self, x: Tensor, generator: Generator | None = None) -> AffineWarp:
        u = torch.rand(x.shape[0], 7, **_from(generator), device=x.device, dtype=_at_least_single(x))
        chosen = self.chosen(x, generator)
        low, high = self.scale
        if chosen is not None:  # u = .5 is no movement
            u = torch.where(chosen[:, None], u, u.new_tensor([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0]))
        scale = low + (high - low) * u[:, 3]
        if chosen is not None:
            scale = torch.where(chosen, scale, 1.0)
        around = 2 * u - 1
        flip = u[:, 6] < self.flip
        return affine_warp(
            self.degrees * around[:, 0], self.translate * around[:, 1:3], scale, self.shear * around[:, 4:6], flip
        )

    def extra_repr(self) -> str:
        return (
            f"degrees={self.degrees}, translate={self.translate}, scale={self.scale}, shear={self.shear}, "
            f"flip={self.flip}, p={self.p}"
        )


class ElasticDeformation(Movement):
    """Moves every pixel a little its own way, neighbours alike, each image by its own draw (Simard et al. 2003).

    Wraps :func:`elastic_warp`. The defaults are the paper's for digits of 28 x 28 pixels, displacements of standard
    deviation 1.4 pixels; larger images want both larger.

    Args:
        alpha: Scale of the displacements, in pixels; they are of standard deviation alpha / (6.14 sigma).
        sigma: How smooth they are, in pixels.
        p: The share of samples that are augmented.
        padding: What is outside of the image: "zeros", "border" or "reflection".

    Raises:
        ValueError: A negative ``alpha``, a ``sigma`` that is not positive, input that is not (B, C, H, W).
        TypeError: Input that is not floating point.

    >>> ElasticDeformation(alpha=34.0, sigma=4.0)(torch.randn(8, 1, 28, 28)).shape
    torch.Size([8, 1, 28, 28])
    """

    def __init__(self, alpha: float = 34.0, sigma: float = 4.0, *, p: float = 1.0, padding: str = "zeros") -> None:
        super().__init__(p, padding)
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(f"alpha has to be 0 or more, not {alpha}")
        if not (math.isfinite(sigma) and sigma > 0):
            raise ValueError(f"sigma has to be positive, not {sigma}")
        self.alpha, self.sigma = alpha, sigma

    def draw(self, x: Tensor, generator: Generator | None = None) -> ElasticWarp:
        noise = torch.empty(x.shape[0], 2, *x.shape[-2:], device=x.device, dtype=_at_least_single(x))
        noise.uniform_(-1, 1, **_from(generator))
        chosen = self.chosen(x, generator)
        if chosen is not None:
            noise = noise * chosen[:, None, None, None]
        return elastic_warp(noise, self.alpha, self.sigma)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, sigma={self.sigma}, p={self.p}"


class AdditiveNoise(Augmentation):
    """Adds Gaussian noise to a batch of any shape (B, ...).

    Args:
        std: Its standard deviation; of a range (lowest, highest) every sample draws its own.
        p: The share of samples that are augmented.

    Raises:
        ValueError: A negative or empty range.
        TypeError: Input that is not floating point.

    >>> noisy = AdditiveNoise(0.5)(torch.zeros(4, 10_000))
    >>> [round(float(row.std()), 1) for row in noisy]
    [0.5, 0.5, 0.5, 0.5]
    """

    def __init__(self, std: float | tuple[float, float] = 0.1, *, p: float = 1.0) -> None:
        super().__init__(p)
        low, high = std if isinstance(std, Sequence) else (std, std)
        if not (0 <= low <= high and math.isfinite(high)):
            raise ValueError(f"std has to be 0 or more, or (lowest, highest), not {std}")
        self.std = (float(low), float(high))

    def augment(self, x: Tensor, generator: Generator | None) -> Tensor:
        noise = torch.randn(x.shape, **_from(generator), device=x.device, dtype=_at_least_single(x))
        low, high = self.std
        size = noise.new_full((x.shape[0],), low)
        if high > low:
            size = size + (high - low) * torch.rand(x.shape[0], **_from(generator), device=x.device)
        chosen = self.chosen(x, generator)
        if chosen is not None:
            size = size * chosen
        size = size.to(noise.dtype).view(-1, *[1] * (x.dim() - 1))
        return torch.addcmul(x.to(noise.dtype), noise, size).to(x.dtype)

    def extra_repr(self) -> str:
        return f"std={self.std[0] if self.std[0] == self.std[1] else self.std}, p={self.p}"


def _at_least_single(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
