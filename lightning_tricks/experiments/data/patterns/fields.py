"""Columns: each tensor of a batch with a pattern to an entry, as a matrix, with a key that tells equal patterns."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_tricks.experiments.preflight.patterns import NotAskedError

LARGEST = 3 * 64 * 64  # numbers of a pattern that are kept as they are; larger ones are averaged
_SIDE = 64  # pixels of the picture that is kept of a larger one
_TARGETS = ("label", "labels", "target", "targets", "y", "class", "classes", "cls")
_CHANNELS = (1, 3, 4)
Kind = Literal["image", "tokens", "numbers"]


@dataclasses.dataclass(frozen=True)
class Column:
    """One tensor of the batches, over all patterns.

    Args:
        name: Its place in a batch, such as ``"0"`` or ``"1.mask"``.
        values: Patterns first; averaged where a pattern is large.
        keys: A number for every pattern, the same for the same.
        shape: That of a pattern, before it was averaged.
        is_target: Whether it is what a network is to predict.
        whole: Whether the values are as they were.
    """

    name: str
    values: Tensor
    keys: np.ndarray
    shape: tuple[int, ...]
    is_target: bool = False
    whole: bool = True

    def __len__(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        return self.values.numel() * self.values.element_size()

    @property
    def kind(self) -> Kind:
        """What it looks like: images are numbers with two axes of space, tokens are whole numbers in a row."""
        if len(self.shape) >= 2 and min(_space(self.shape)) >= 4 and _channels_of(self.shape) in (*_CHANNELS, None):
            return "image"
        whole = not self.values.is_floating_point() and self.values.dtype not in (torch.uint8, torch.bool)
        return "tokens" if whole and len(self.shape) == 1 and self.shape[0] > 1 else "numbers"

    def some(self, places: Tensor) -> Column:
        """Of some patterns."""
        return dataclasses.replace(self, values=self.values[places], keys=self.keys[places.numpy()])

    def flat(self) -> Tensor:
        """A matrix of patterns and their numbers, in single precision."""
        return self.values.reshape(len(self.values), -1).float()

    @classmethod
    def joined(cls, parts: Sequence[Column]) -> Column:
        """Of several batches; sequences that were padded to other lengths are padded on."""
        first = parts[0]
        shapes = {tuple(part.values.shape[1:]) for part in parts}
        values = [part.values for part in parts]
        if len(shapes) > 1:
            if len({len(shape) for shape in shapes}) > 1:
                raise NotAskedError("batches are not built alike")
            values = _padded(values)
        return dataclasses.replace(
            first,
            values=torch.cat(values),
            keys=np.concatenate([part.keys for part in parts]),
            shape=max(part.shape for part in parts),
            whole=all(part.whole for part in parts),
        )


def _space(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of an image, whichever axis its channels are."""
    channels_last = len(shape) == 3 and shape[-1] in _CHANNELS and shape[0] not in _CHANNELS
    return (shape[0], shape[1]) if channels_last else (shape[-2], shape[-1])


def _channels_of(shape: tuple[int, ...]) -> int | None:
    if len(shape) == 3:
        return shape[-1] if shape[-1] in _CHANNELS and shape[0] not in _CHANNELS else shape[0]
    return None if len(shape) == 2 and min(shape) >= 8 else -1


def columns_of(batch: Any, size: int) -> list[Column]:
    """The tensors, NumPy arrays and lists of words of a batch that have an entry for every pattern.

    Raises:
        NotAskedError: There is none.
    """
    leaves = list(_leaves(batch))
    targets = _targets(batch, leaves)
    found = []
    for name, value in leaves:
        values = _with_patterns_first(value, size)
        if values is not None:
            found.append(_column(name, values, name in targets))
    if not found:
        raise NotAskedError("a batch has no tensor with an entry for every pattern")
    return found


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, (Tensor, np.ndarray)):
        yield path or "0", tree
    elif isinstance(tree, Mapping):
        for key in tree:
            yield from _leaves(tree[key], f"{path}.{key}".lstrip("."))
    elif isinstance(tree, (tuple, list)):
        if tree and all(isinstance(each, str) for each in tree):
            yield path or "0", list(tree)
        elif tree and all(isinstance(each, (int, float)) for each in tree):
            yield path or "0", torch.as_tensor(tree)
        else:
            for key, each in enumerate(tree):
                yield from _leaves(each, f"{path}.{key}".lstrip("."))
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        for field in dataclasses.fields(tree):
            yield from _leaves(getattr(tree, field.name), f"{path}.{field.name}".lstrip("."))


def _targets(batch: Any, leaves: Sequence[tuple[str, Any]]) -> set[str]:
    """The names of what is to be predicted: by their keys, else the last entry of a pair or of a tuple."""
    names = [name for name, _ in leaves]
    named = [name for name in names if name.rpartition(".")[2].lower() in _TARGETS]
    if named or len(names) < 2:
        return set(named[:1])
    if isinstance(batch, (tuple, list)):
        last = str(len(batch) - 1)
        return {name for name in names if name.partition(".")[0] == last}
    return {names[-1]} if len(names) == 2 else set()


def _with_patterns_first(value: Any, size: int) -> Tensor | None:
    if isinstance(value, list):  # words: equal ones have equal numbers
        return torch.tensor([_number(each) for each in value]) if len(value) == size else None
    tensor = torch.as_tensor(value).detach().cpu()
    if tensor.is_complex() or tensor.layout != torch.strided or tensor.is_quantized:
        return None
    axis = next((k for k, length in enumerate(tensor.shape[:3]) if length == size), None)
    return None if axis is None else tensor.movedim(axis, 0).clone()


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")


def _column(name: str, values: Tensor, is_target: bool) -> Column:
    shape = tuple(values.shape[1:])
    keys = _keys(values)
    kept = values if values[0].numel() <= LARGEST else _averaged(values)
    return Column(name, kept, keys, shape, is_target, kept is values)


def _keys(values: Tensor) -> np.ndarray:
    """A hash of every pattern; zeros at the end of whole numbers, such as padding, are left out."""
    whole = not values.is_floating_point()
    rows = (values.long() if whole else values.float() + 0.0).reshape(len(values), -1).contiguous().numpy()
    if whole and rows.shape[1] > 1:
        return np.array([_hash(_stripped(row)) for row in rows], np.int64)
    return np.array([_hash(row) for row in rows], np.int64)


def _hash(row: np.ndarray) -> int:
    return int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little", signed=True)


def _stripped(row: np.ndarray) -> np.ndarray:
    used = np.flatnonzero(row)
    return row[: used[-1] + 1] if len(used) else row[:0]


def _averaged(values: Tensor) -> Tensor:
    values = values.float()
    if values.dim() >= 3 and min(values.shape[-2:]) >= _SIDE // 2:
        side = (min(_SIDE, values.shape[-2]), min(_SIDE, values.shape[-1]))
        images = F.adaptive_avg_pool2d(values.flatten(1, -3) if values.dim() > 3 else values[:, None], side)
        if images[0].numel() <= 2 * LARGEST:
            return images
        values = images
    return F.adaptive_avg_pool1d(values.flatten(1)[:, None], LARGEST // 3)[:, 0]


def _padded(values: list[Tensor]) -> list[Tensor]:
    most = [max(lengths) for lengths in zip(*(each.shape[1:] for each in values), strict=True)]
    with_room = []
    for each in values:
        room = [(0, length - have) for have, length in zip(each.shape[1:], most, strict=True)]
        with_room.append(F.pad(each, [side for pair in reversed(room) for side in pair]))
    return with_room
