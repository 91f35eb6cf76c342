"""Movements of images against loops over torch, torchvision and scipy; what moves along against the images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as tvf

import lightning_tricks as lt
from lightning_tricks.nn.augment import AffineWarp, ElasticWarp

ndimage = pytest.importorskip("scipy.ndimage", reason="scipy comes with the extra 'dev'")


def drawn(batch=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(batch, 6, generator=generator) * 2 - 1
    return 40 * u[:, 0], 0.2 * u[:, 1:3], 1 + 0.3 * u[:, 3], 20 * u[:, 4:6]


def test_an_affine_warp_is_torchvisions_sample_by_sample():
    degrees, shift, scale, shear = drawn()
    height, width = 20, 30
    shift = (shift * torch.tensor([width, height])).round() / torch.tensor([width, height])  # whole pixels, as there
    x = torch.randn(6, 3, height, width)
    moved = lt.nn.affine_warp(degrees, shift, scale, shear).images(x)
    for i in range(6):
        pixels = [float(shift[i, 0] * width), float(shift[i, 1] * height)]
        truth = tvf.affine(
            x[i], float(degrees[i]), pixels, float(scale[i]), shear[i].tolist(), tvf.InterpolationMode.BILINEAR
        )
        torch.testing.assert_close(moved[i], truth, rtol=0, atol=2e-4)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_an_affine_warp_is_a_loop_over_affine_grid(padding):
    degrees, shift, scale, shear = drawn(seed=1)
    warp = lt.nn.affine_warp(degrees, shift, scale, shear)
    x = torch.randn(6, 2, 17, 17, dtype=torch.float64)
    moved = warp.images(x, padding=padding)
    for i in range(6):
        inverse = torch.linalg.inv(warp.matrix[i])
        theta = torch.cat([inverse, -2 * inverse @ shift[i, :, None]], 1).double()
        grid = F.affine_grid(theta[None], [1, 2, 17, 17], align_corners=False)
        truth = F.grid_sample(x[i : i + 1], grid, padding_mode=padding, align_corners=False)
        torch.testing.assert_close(moved[i : i + 1], truth, rtol=0, atol=1e-4)


def test_a_flip_comes_first():
    degrees, shift, scale, shear = drawn()
    flip = torch.tensor([True, False] * 3)
    x = torch.randn(6, 1, 16, 16)
    whole = lt.nn.affine_warp(degrees, shift, scale, shear, flip).images(x)
    flipped = torch.where(flip[:, None, None, None], x.flip(-1), x)
    parts = lt.nn.affine_warp(degrees, shift, scale, shear).images(flipped)
    torch.testing.assert_close(whole, parts, rtol=0, atol=2e-4)


@pytest.mark.parametrize("size", [(28, 28), (20, 33)])
def test_an_elastic_warp_is_scipys(size):
    noise = torch.rand(3, 2, *size, dtype=torch.float64) * 2 - 1
    x = torch.randn(3, 2, *size, dtype=torch.float64)
    warp = lt.nn.elastic_warp(noise, 30.0, 3.0)
    moved = warp.images(x, padding="border")
    rows, columns = np.meshgrid(*map(np.arange, size), indexing="ij")
    for i in range(3):
        dx, dy = (30.0 * ndimage.gaussian_filter(plane.numpy(), 3.0, mode="constant") for plane in noise[i])
        np.testing.assert_allclose(warp.displacement[i], np.stack([dx, dy]), atol=1e-12)
        for channel in range(2):
            truth = ndimage.map_coordinates(x[i, channel].numpy(), [rows + dy, columns + dx], order=1, mode="nearest")
            np.testing.assert_allclose(moved[i, channel], truth, atol=1e-10)


def test_displacements_are_as_large_as_the_formula_says():
    noise = torch.rand(64, 2, 64, 64) * 2 - 1
    inner = lt.nn.elastic_warp(noise, 34.0, 4.0).displacement[..., 20:-20, 20:-20]
    assert float(inner.std()) == pytest.approx(34 / (2 * 4 * (3 * torch.pi) ** 0.5), rel=0.05)


def warps(batch, size):
    smooth = lt.nn.elastic_warp(torch.rand(batch, 2, *size) * 2 - 1, 30.0, 4.0)
    affine = lt.nn.affine_warp(*drawn(batch, 3), torch.arange(batch) % 2 == 0)
    return {"affine": affine, "elastic": smooth}


@pytest.mark.parametrize("kind", ["affine", "elastic"])
def test_masks_take_the_nearest_pixel_in_any_dtype(kind):
    warp = warps(4, (24, 32))[kind]
    masks = torch.randint(0, 200, (4, 24, 32))
    truth = F.grid_sample(masks[:, None].float(), warp.grid((24, 32)), mode="nearest", align_corners=False)[:, 0]
    assert torch.equal(warp.masks(masks), truth.long())
    large = masks + 2**53 + 1
    assert torch.equal(warp.masks(large, fill=2**53 + 1), truth.long() + 2**53 + 1)
    several = warp.masks(torch.stack([masks > 100, masks > 150], 1))
    assert several.dtype == torch.bool
    assert torch.equal(several[:, 0], truth > 100)


@pytest.mark.parametrize("kind", ["affine", "elastic"])
def test_key_points_stay_on_what_they_mark(kind):
    """An image of the columns' and rows' own numbers is moved: where a key point arrives it reads where it was."""
    size = (48, 64)
    warp = warps(8, size)[kind]
    points = torch.tensor([[20.0, 15.0], [40.0, 30.0], [31.5, 24.0]]).expand(8, 3, 2)
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in size), indexing="ij")
    moved = warp.images(torch.stack([x, y]).expand(8, 2, *size), padding="border")
    found = warp.points(points, size)
    place = (found + 0.5) * 2 / torch.tensor([64.0, 48.0]) - 1
    read = F.grid_sample(moved, place[:, None], align_corners=False)[:, :, 0].mT
    inside = ((found > 1) & (found < torch.tensor([62.0, 46.0]))).all(2)
    assert inside.sum() >= 16
    assert float((read - points)[inside].abs().max()) < 0.02
    assert float((found - points).abs().max()) > 1.0


@pytest.mark.parametrize("kind", ["affine", "elastic"])
def test_boxes_hold_what_they_held(kind):
    """The box around a filled box that was moved, to a pixel."""
    size = (40, 50)
    warp = warps(6, size)[kind]
    boxes = torch.tensor([[12.0, 10.0, 30.0, 28.0]]).expand(6, 1, 4)
    filled = torch.zeros(6, 1, *size)
    filled[..., 10:28, 12:30] = 1
    moved, found = warp.images(filled)[:, 0] > 0.5, warp.boxes(boxes, size)[:, 0]
    for i in range(6):
        rows, columns = moved[i].any(1).nonzero().flatten(), moved[i].any(0).nonzero().flatten()
        truth = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert float((found[i] - truth).abs().max()) <= 1.6
    assert not torch.allclose(found, boxes[:, 0], atol=1.0)


def test_boxes_are_cut_off_at_the_image_and_whole_numbers_stay_whole():
    away = AffineWarp(torch.eye(2).expand(1, 2, 2), torch.tensor([[0.5, 0.0]]))
    found = away.boxes(torch.tensor([[[2, 2, 8, 8]]]), (10, 10))
    assert found.dtype == torch.int64
    assert found.tolist() == [[[7, 2, 10, 8]]]


def test_an_elastic_warp_of_another_size_is_refused():
    with pytest.raises(ValueError, match="masks and images need one size"):
        ElasticWarp(torch.zeros(1, 2, 8, 8)).masks(torch.zeros(1, 4, 4))
