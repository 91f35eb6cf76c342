"""Examples: patterns that an answer names, with a small picture where they are images."""

from __future__ import annotations

import base64
import itertools
import struct
import zlib
from collections.abc import Iterable

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from lightning_tricks.diagnosis.experiment import Example
from lightning_tricks.experiments.data.patterns.reading import Patterns

SHOWN = 12  # with a picture
_MOST = 200
_LISTED = 8
_LARGEST = 32  # pixels of a side


def examples_of(patterns: Patterns, found: Iterable[tuple[int, str]], part: str = "training") -> list[Example]:
    """These patterns, not too many, by their places in what was read, each with what is said of it."""
    images = next((column.values for column in patterns.inputs if column.kind == "image"), None)
    made = list[Example]()
    for place, text in itertools.islice(found, _MOST):
        picture = "" if images is None or len(made) >= SHOWN else picture_of(images[place])
        made.append(Example(int(patterns.index[place]), text, part, picture))
    return made


def listed(patterns: Patterns, places: Iterable[int]) -> str:
    """The first numbers, for a sentence."""
    numbers = [int(patterns.index[place]) for place in places]
    return ", ".join(map(str, numbers[:_LISTED])) + (", ..." if len(numbers) > _LISTED else "")


def picture_of(image: Tensor) -> str:
    """An image as a PNG in a data URI, its darkest number black and its brightest white.

    >>> import torch
    >>> picture_of(torch.rand(3, 8, 8))[:22]
    'data:image/png;base64,'
    """
    x = image.float().nan_to_num()
    x = x[None] if x.dim() == 2 else x
    if x.shape[0] not in (1, 3, 4):
        x = x.movedim(-1, 0) if x.shape[-1] in (1, 3, 4) else x[:1]
    x = x[:3] if x.shape[0] >= 3 else x[:1]
    if max(x.shape[1:]) > _LARGEST:
        x = F.adaptive_avg_pool2d(x[None], (min(_LARGEST, x.shape[1]), min(_LARGEST, x.shape[2])))[0]
    low, high = float(x.min()), float(x.max())
    bytes_ = ((x - low) / max(high - low, 1e-12) * 255).round().byte().movedim(0, -1).numpy()
    return f"data:image/png;base64,{base64.b64encode(_png(bytes_)).decode()}"


def _png(pixels: np.ndarray) -> bytes:
    """Height x width x 1 (grey) or 3 (red, green, blue) bytes."""
    height, width, channels = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], 1)  # each without a filter
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
