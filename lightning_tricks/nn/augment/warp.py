"""A movement of the pixels of a batch, drawn for every sample, and what it does to images, masks, points and boxes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["AffineWarp", "ElasticWarp", "Warp"]

PADDING = ("zeros", "border", "reflection")
_PER_EDGE = 9  # points along each edge of a box that are followed
_ROUNDS = 20  # of the fixed-point iteration that inverts a displacement; at a slope of .5 it is then exact to 1e-6


class Warp(ABC):
    """Where each pixel of an output looks in its input, for every sample of a batch.

    Coordinates are pixels, (x, y). Of points a whole number is the centre of a pixel, as in torchvision's KeyPoints;
    of boxes (x1, y1, x2, y2) it is the edge between two pixels, so that a box of one pixel is (0, 0, 1, 1).
    """

    @abstractmethod
    def grid(self, size: tuple[int, int]) -> Tensor:
        """(B, H, W, 2): where each output pixel looks, from -1 to 1 between the outer edges, as ``F.grid_sample``."""

    @abstractmethod
    def move(self, edges: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, N, 2) where points of the input arrive in the output, counted from the image's outer edge."""

    def images(self, x: Tensor, *, mode: str = "bilinear", padding: str = "zeros") -> Tensor:
        """(B, C, H, W) of any floating dtype, computed in float32 at least."""
        grid = self.grid((x.shape[-2], x.shape[-1]))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        moved = F.grid_sample(wide, grid.to(wide.dtype), mode=mode, padding_mode=padding, align_corners=False)
        return moved.to(x.dtype)

    def masks(self, masks: Tensor, *, fill: int = 0) -> Tensor:
        """(B, H, W) or (B, N, H, W) of any dtype: the value of the nearest pixel, ``fill`` from outside."""
        height, width = masks.shape[-2:]
        grid = self.grid((height, width))
        column = (((grid[..., 0] + 1) * width - 1) / 2).round().long()
        row = (((grid[..., 1] + 1) * height - 1) / 2).round().long()
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        place = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).flatten(1)
        channels = masks.reshape(masks.shape[0], -1, height * width)
        taken = channels.gather(2, place[:, None].expand(-1, channels.shape[1], -1))
        taken = torch.where(inside.flatten(1)[:, None], taken, torch.full_like(taken, fill))
        return taken.reshape(masks.shape)

    def points(self, points: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, ..., 2) key points of images of ``size`` (H, W)."""
        if points.numel() == 0:
            return points
        wide = points.to(torch.promote_types(points.dtype, torch.float32)).reshape(points.shape[0], -1, 2)
        moved = self.move(wide + 0.5, size) - 0.5
        return _cast(moved, points.dtype).reshape(points.shape)

    def boxes(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, N, 4) upright boxes (x1, y1, x2, y2): those around what the old ones held, cut off at the image."""
        if boxes.numel() == 0:
            return boxes
        wide = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
        along = torch.linspace(0, 1, _PER_EDGE, device=boxes.device, dtype=wide.dtype)
        zero, one = torch.zeros_like(along), torch.ones_like(along)
        x = torch.cat([along, along, zero, one])
        y = torch.cat([zero, one, along, along])
        first, last = wide[..., None, :2], wide[..., None, 2:]
        around = first + (last - first) * torch.stack([x, y], 1)
        moved = self.move(around.reshape(boxes.shape[0], -1, 2), size).reshape(around.shape)
        most = moved.new_tensor([size[1], size[0]])
        low, high = (end.clamp(min=0).minimum(most) for end in (moved.amin(-2), moved.amax(-2)))
        return _cast(torch.cat([low, high], -1), boxes.dtype)


@dataclass(frozen=True)
class AffineWarp(Warp):
    """``output = matrix (input - centre) + shift + centre``.

    Attributes:
        matrix: (B, 2, 2).
        shift: (B, 2), in shares of width and height.

    >>> flip = AffineWarp(torch.tensor([[[-1.0, 0.0], [0.0, 1.0]]]), torch.zeros(1, 2))
    >>> flip.images(torch.arange(6.0).view(1, 1, 2, 3))[0, 0].tolist()
    [[2.0, 1.0, 0.0], [5.0, 4.0, 3.0]]
    >>> flip.points(torch.tensor([[[0.0, 1.0]]]), (2, 3)).tolist()
    [[[2.0, 1.0]]]
    """

    matrix: Tensor
    shift: Tensor

    def grid(self, size: tuple[int, int]) -> Tensor:
        height, width = size
        (a, b), (c, d) = (row.unbind(1) for row in self.matrix.unbind(1))
        determinant = a * d - b * c
        inverse = torch.stack([d, -b * height / width, -c * width / height, a], 1) / determinant[:, None]
        inverse = inverse.view(-1, 2, 2)
        theta = torch.cat([inverse, -2 * inverse @ self.shift[:, :, None]], 2)
        return F.affine_grid(theta, [theta.shape[0], 1, height, width], align_corners=False)

    def move(self, edges: Tensor, size: tuple[int, int]) -> Tensor:
        sides = edges.new_tensor([size[1], size[0]])
        matrix, shift = self.matrix.to(edges.dtype), self.shift.to(edges.dtype)
        return (edges - sides / 2) @ matrix.mT + shift[:, None] * sides + sides / 2


@dataclass(frozen=True)
class ElasticWarp(Warp):
    """``output(p) = input(p + displacement(p))``.

    Attributes:
        displacement: (B, 2, H, W), in pixels to the right and down.
    """

    displacement: Tensor

    def grid(self, size: tuple[int, int]) -> Tensor:
        self._check(size)
        height, width = size
        x, y = self.displacement.unbind(1)
        column = (torch.arange(width, device=x.device, dtype=x.dtype) + 0.5) * 2 / width - 1
        row = (torch.arange(height, device=x.device, dtype=x.dtype) + 0.5) * 2 / height - 1
        return torch.stack([column + x * 2 / width, row[:, None] + y * 2 / height], -1)

    def move(self, edges: Tensor, size: tuple[int, int]) -> Tensor:
        """The p with ``p + displacement(p)`` at the point, by fixed-point iteration."""
        self._check(size)
        sides, moved = edges.new_tensor([size[1], size[0]]), edges
        field = self.displacement.to(edges.dtype)
        for _ in range(_ROUNDS):
            place = (moved * 2 / sides - 1)[:, None]
            there = F.grid_sample(field, place, padding_mode="border", align_corners=False)
            moved = edges - there[:, :, 0].mT
        return moved

    def _check(self, size: tuple[int, int]) -> None:
        if tuple(self.displacement.shape[-2:]) != tuple(size):
            raise ValueError(
                f"an elastic deformation of images {list(self.displacement.shape[-2:])} cannot move what is "
                f"{list(size)}: masks and images need one size"
            )


def _cast(moved: Tensor, dtype: torch.dtype) -> Tensor:
    return moved.to(dtype) if dtype.is_floating_point else moved.round().to(dtype)
