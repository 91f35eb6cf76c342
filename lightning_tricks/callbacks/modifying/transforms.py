"""Transforms of others and our own, applied to the columns of a batch from one seed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_tricks.callbacks.modifying.columns import BatchEntry, get, is_tv, items_of, plain, put
from lightning_tricks.model.isolated import keep_random_numbers
from lightning_tricks.nn.augment import Augmentation, Movement, Warp

Transform = Callable[..., Any]


def flattened(transform: Any) -> list[Transform]:
    """The steps of a transform: of a list, and of an ``nn.Sequential`` that holds modules of ours.

    Raises:
        TypeError: One of them cannot be called.
    """
    if isinstance(transform, Sequence):
        return [step for part in transform for step in flattened(part)]
    if isinstance(transform, nn.Sequential) and any(isinstance(part, Augmentation) for part in transform.modules()):
        return [step for part in transform for step in flattened(part)]
    if not callable(transform) or isinstance(transform, type):
        raise TypeError(f"transform has to be a module or a function that takes a batch, got {transform!r}")
    return [transform]


def is_torchvisions(transform: Any) -> bool:
    """Whether a transform is torchvision's, or derived from one: it draws once a call."""
    return any(cls.__module__.startswith("torchvision.transforms") for cls in type(transform).__mro__)


def mixes_samples(transform: Any) -> bool:
    """Whether a transform of torchvision makes one sample of two, so that it needs the whole batch with its labels."""
    parts = transform.modules() if isinstance(transform, nn.Module) else [transform]
    return any(cls.__name__ in ("MixUp", "CutMix") for part in parts for cls in type(part).__mro__)


def apply_own(
    module: Augmentation, columns: list[BatchEntry], generator: torch.Generator, mask_fill: int
) -> list[BatchEntry]:
    """A module of ours: every sample by its own draw, in one go where they are stacked."""
    if not (module.training and module.p > 0):
        return columns
    if columns[0].stacked:
        whole = [_tensor(column) for column in columns]
        moved = _augmented(module, columns, [plain(value) for value in whole], generator, mask_fill)
        return [replace(c, values=_as(one, old)) for c, one, old in zip(columns, moved, whole, strict=True)]
    lists: list[list[Tensor]] = [[] for _ in columns]
    for i in range(len(columns[0].values)):
        given = [plain(column.values[i])[None] for column in columns]
        for own, one, column in zip(
            lists, _augmented(module, columns, given, generator, mask_fill), columns, strict=True
        ):
            own.append(_as(one[0], column.values[i]))
    return [replace(column, values=own) for column, own in zip(columns, lists, strict=True)]


def _augmented(
    module: Augmentation, columns: list[BatchEntry], values: list[Tensor], generator: torch.Generator, mask_fill: int
) -> list[Tensor]:
    """Plain tensors ``[B, ...]``, images first."""
    module.check(values[0])
    if not isinstance(module, Movement):
        return [
            module(value, generator=generator) if column.kind == "image" else value
            for column, value in zip(columns, values, strict=True)
        ]
    warp, size = module.draw(values[0], generator), (values[0].shape[-2], values[0].shape[-1])
    moves: dict[str, Callable[[Tensor], Tensor]] = {
        "image": lambda value: warp.images(value, padding=module.padding),
        "mask": lambda value: warp.masks(value, fill=mask_fill),
        "keypoints": lambda value: warp.points(value, size),
    }
    return [
        _moved_boxes(warp, value, column.values[0], size) if column.kind == "boxes" else moves[column.kind](value)
        for column, value in zip(columns, values, strict=True)
    ]


def _moved_boxes(warp: Warp, boxes: Tensor, like: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (x1, y1, x2, y2), or of the format that torchvision knows of them."""
    layout = getattr(like, "format", None)
    if layout is None or layout.value == "XYXY":
        return warp.boxes(boxes, size)
    from torchvision.transforms.v2 import functional as tvf

    if layout.value not in ("XYWH", "CXCYWH"):
        raise ValueError(f"boxes of format {layout.value} cannot be moved: use XYXY, XYWH or CXCYWH")
    corners = type(layout)["XYXY"]
    moved = warp.boxes(tvf.convert_bounding_box_format(boxes, layout, corners), size)
    converted: Tensor = tvf.convert_bounding_box_format(moved, corners, layout)
    return converted


def apply_each(transform: Transform, columns: list[BatchEntry]) -> list[BatchEntry]:
    """A transform that draws once a call: a call for every sample, with all that belongs to it."""
    results: list[list[Tensor]] = []
    for i in range(len(columns[0].values)):
        size = plain(columns[0].values[i]).shape[-2:]
        result = transform(*(_for_torchvision(transform, column, i, size, len(columns) > 1) for column in columns))
        results.append([result] if len(columns) == 1 else list(result))
    return [
        replace(column, values=_joined(column, [_as(own[number], column.values[0]) for own in results]))
        for number, column in enumerate(columns)
    ]


def apply_to_samples(transform: Transform, batch: Any, columns: list[BatchEntry]) -> Any:
    """A transform of torchvision on a batch of lists: it is given each sample whole, with labels and all that it holds.

    So it may also change how many boxes there are, as ``SanitizeBoundingBoxes`` does.
    """
    count = len(columns[0].values)
    unnamed = {path: column for column in columns for path in column.paths if not is_tv(get(batch, path))}
    sizes = [plain(value).shape[-2:] for value in columns[0].values]
    marked = put(
        batch,
        {
            path: _for_torchvision(transform, column, column.paths.index(path), sizes[column.paths.index(path)], True)
            for path, column in unnamed.items()
        },
    )
    lists = {
        key: column for key, column in items_of(marked) if isinstance(column, (list, tuple)) and len(column) == count
    }
    results: dict[Any, list[Any]] = {key: [] for key in lists}
    for i in range(count):
        given = [column[i] for column in lists.values()]
        result = transform(*given)
        for key, part in zip(lists, [result] if len(given) == 1 else result, strict=True):
            results[key].append(part)
    found = put(batch, {(key,): type(lists[key])(parts) for key, parts in results.items()})
    return put(found, {path: plain(get(found, path)) for path in unnamed})


def apply_whole(transform: Transform, columns: list[BatchEntry]) -> list[BatchEntry]:
    """A function of the batch's entries: one call."""
    result = transform(*(column.values for column in columns))
    parts = [result] if len(columns) == 1 else list(result)
    if len(parts) != len(columns):
        raise ValueError(f"the transform was given {len(columns)} entries and returned {len(parts)}")
    return [replace(column, values=part) for column, part in zip(columns, parts, strict=True)]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A block that draws from a seed; all random numbers go on as if nothing had been drawn."""
    with keep_random_numbers():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield


def _for_torchvision(transform: Transform, column: BatchEntry, i: int, size: Sequence[int], several: bool) -> Tensor:
    """A sample's entry as torchvision asks for it: one image alone may be plain."""
    value = column.values[i]
    if not several or is_tv(value) or not is_torchvisions(transform):
        like = column.values
        return _as(value, like) if isinstance(like, Tensor) else value
    from torchvision import tv_tensors as tv

    if column.kind == "boxes":
        canvas = (int(size[0]), int(size[1]))
        made: Tensor = tv.BoundingBoxes(value, format="XYXY", canvas_size=canvas)
        return made
    if column.kind == "keypoints":
        if not hasattr(tv, "KeyPoints"):
            raise RuntimeError("key points need torchvision 0.23 or newer, or transforms of lt.nn")
        points: Tensor = tv.KeyPoints(value, canvas_size=(int(size[0]), int(size[1])))
        return points
    return tv.Image(value) if column.kind == "image" else tv.Mask(value)


def _as(value: Tensor, like: Tensor) -> Tensor:
    """A tensor of the kind that it was before: plain, or of torchvision with its size and format."""
    if not is_tv(like):
        return plain(value)
    if is_tv(value):
        return value
    from torchvision import tv_tensors

    wrapped: Tensor = tv_tensors.wrap(value, like=like)
    return wrapped


def _joined(column: BatchEntry, values: list[Tensor]) -> Tensor | list[Tensor]:
    if not column.stacked:
        return values
    return _as(torch.stack([plain(value) for value in values]), _tensor(column))


def _tensor(column: BatchEntry) -> Tensor:
    assert isinstance(column.values, Tensor)
    return column.values
