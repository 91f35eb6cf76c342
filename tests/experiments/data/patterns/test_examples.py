"""Pictures of patterns."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest
import torch

from lightning_tricks.experiments.data.patterns.examples import SHOWN, examples_of, listed, picture_of
from lightning_tricks.experiments.data.patterns.reading import read


def pixels_of(picture: str) -> torch.Tensor:
    """An independent reader of what is written."""
    data = base64.b64decode(picture.removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        chunks[kind] = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + chunks[kind])
        at += 12 + length
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert depth == 8
    rows = torch.tensor(list(zlib.decompress(chunks[b"IDAT"]))).view(height, -1)
    assert (rows[:, 0] == 0).all()
    return rows[:, 1:].view(height, width, 3 if colour == 2 else 1)


@pytest.mark.parametrize("shape", [(1, 5, 7), (5, 7), (3, 5, 7), (5, 7, 3)])
def test_a_picture_is_the_image(shape):
    image = torch.randint(256, shape, generator=torch.Generator().manual_seed(0)).float()
    image.view(-1)[:2] = torch.tensor([0.0, 255.0])
    wanted = image if shape[-1] == 3 else image[:, :, None] if len(shape) == 2 else image.movedim(0, -1)
    assert torch.equal(pixels_of(picture_of(image)), wanted.long())


def test_large_images_and_constant_ones():
    assert pixels_of(picture_of(torch.rand(3, 200, 100))).shape == (32, 32, 3)
    assert (pixels_of(picture_of(torch.full((1, 4, 4), 7.0))) == 0).all()


def test_the_first_have_pictures_and_all_have_numbers():
    patterns = read((torch.rand(40, 1, 8, 8), torch.zeros(40)))
    found = examples_of(patterns, ((i, "odd") for i in range(0, 40, 2)))
    assert [each.index for each in found] == list(range(0, 40, 2))
    assert [bool(each.picture) for each in found] == [True] * SHOWN + [False] * (20 - SHOWN)
    assert listed(patterns, range(10)) == "0, 1, 2, 3, 4, 5, 6, 7, ..."
