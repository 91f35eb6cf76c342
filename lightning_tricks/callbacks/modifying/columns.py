"""What of a batch is moved when its images are: entries of any nesting, stacked or in a list of samples."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Kind = Literal["image", "mask", "boxes", "keypoints"]
KINDS: tuple[str, ...] = get_args(Kind)
Path = tuple[Any, ...]
TV_TENSORS = "torchvision.tv_tensors"


@dataclass
class BatchEntry:
    """One entry of a batch, of all of its samples.

    Attributes:
        kind: What it is to a movement.
        paths: Where it stands: one place, or one a sample.
        values: ``[B, ...]``, or one tensor a sample.
    """

    kind: str
    paths: list[Path]
    values: Tensor | list[Tensor]

    @property
    def stacked(self) -> bool:
        return isinstance(self.values, Tensor)


def columns_of(batch: Any, entries: Mapping[str, str] | None) -> list[BatchEntry]:
    """The entries of a batch that belong together, images first.

    Tensors of ``torchvision.tv_tensors`` say themselves what they are. ``entries`` name further ones by their path,
    ``"1.boxes"``; without any, and without an Image, it is the first floating-point tensor.

    Raises:
        ValueError: A name that is not in the batch, no image, or columns of unequal numbers of samples.
    """
    samples = _number_of_samples(batch, entries or {})
    named: dict[str, list[tuple[Path, Tensor]]] = {}
    for path, leaf in leaves(batch):
        named.setdefault(name_of(batch, path, samples), []).append((path, leaf))
    kinds = {name: kind for name, group in named.items() if (kind := _kind_of(group[0][1])) is not None}
    missing = [name for name in entries or {} if name not in named]
    if missing:
        raise ValueError(f"the batch has no tensor {missing[0]!r}; there are {', '.join(map(repr, named))}")
    kinds.update(entries or {})
    if "image" not in kinds.values():
        first = next((name for name, group in named.items() if group[0][1].is_floating_point()), None)
        if first is None or (entries and "image" not in entries.values()):
            raise ValueError("the batch has no image to augment: entries={'0': 'image'} names one, by its place or key")
        kinds[first] = "image"
    found = [_column(kind, named[name], samples) for name, kind in kinds.items()]
    found.sort(key=lambda column: column.kind != "image")
    counts = {len(column.values) for column in found}
    if len(counts) > 1:
        raise ValueError(f"entries of {sorted(counts)} samples cannot be moved together")
    return found


def _column(kind: str, group: list[tuple[Path, Tensor]], samples: int | None) -> BatchEntry:
    paths, values = [path for path, _ in group], [value for _, value in group]
    return BatchEntry(kind, paths, values[0] if samples is None else values)


def _number_of_samples(batch: Any, entries: Mapping[str, str]) -> int | None:
    """Of a batch whose images are a list of (C, H, W); None where they are stacked.

    Where an image is named, the name says it: "0" is a list, or "0.image" is the entry of each that it holds.
    """
    items = dict(items_of(batch))
    named = next((name.split(".") for name, kind in entries.items() if kind == "image"), None)
    if named is not None:
        column = next((value for key, value in items.items() if str(key) == named[0]), None)
        if not isinstance(column, (list, tuple)) or any(str(index) in named[1:2] for index in range(len(column))):
            return None
        return len(column)
    column = next((value for value in items.values() if any(True for _ in leaves(value))), None)
    found = list(column) if isinstance(column, (list, tuple)) else []
    return len(found) if found and all(_is_image(item) for item in found) else None


def _is_image(item: Any) -> bool:
    """(C, H, W), by what torchvision knows of it or by its dtype."""
    if not isinstance(item, Tensor) or item.dim() != 3:
        return False
    kind = _kind_of(item)
    return kind == "image" or (kind is None and item.is_floating_point())


def name_of(batch: Any, path: Path, samples: int | None) -> str:
    """The path of a leaf as a name, without the number of its sample."""
    if samples is not None and len(path) > 1:
        column = batch[path[0]]
        if isinstance(column, (list, tuple)) and len(column) == samples:
            path = path[:1] + path[2:]
    return ".".join(map(str, path))


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Every tensor of a tree of mappings, lists and tuples, with its path."""
    if isinstance(tree, Tensor):
        yield path, tree
    else:
        for key, value in items_of(tree):
            yield from leaves(value, (*path, key))


def items_of(tree: Any) -> list[tuple[Any, Any]]:
    """The keys of a mapping or the places of a list or tuple, with what stands there; nothing of anything else."""
    if isinstance(tree, Mapping):
        return list(tree.items())
    return list(enumerate(tree)) if isinstance(tree, (list, tuple)) else []


def get(tree: Any, path: Path) -> Any:
    """What stands at a path."""
    for key in path:
        tree = tree[key]
    return tree


def put(tree: Any, values: Mapping[Path, Any], path: Path = ()) -> Any:
    """The tree with other things in these places; what holds them is new, what is not replaced is the same."""
    if path in values:
        return values[path]
    if not any(key[: len(path)] == path for key in values):
        return tree
    new = {key: put(value, values, (*path, key)) for key, value in items_of(tree)}
    if isinstance(tree, Mapping):
        made = copy.copy(tree)
        for key, value in new.items():
            made[key] = value  # type: ignore[index]
        return made
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*new.values())
    return type(tree)(new.values())


def _kind_of(leaf: Tensor) -> str | None:
    """What a tensor of ``torchvision.tv_tensors`` is; None for a plain one."""
    tv = sys.modules.get(TV_TENSORS)  # nobody has such a tensor who has not imported them
    if tv is None or type(leaf) is Tensor:
        return None
    kinds = {"Image": "image", "Mask": "mask", "BoundingBoxes": "boxes", "KeyPoints": "keypoints"}
    return next((kind for name, kind in kinds.items() if isinstance(leaf, getattr(tv, name, ()))), None)


def is_tv(leaf: Tensor) -> bool:
    """Whether a tensor is one of ``torchvision.tv_tensors``."""
    return _kind_of(leaf) is not None


def plain(leaf: Tensor) -> Tensor:
    """The tensor without what torchvision knows of it."""
    return leaf.as_subclass(torch.Tensor)
