"""Tensors in lists, tuples and dictionaries: torch's own functions, or the same for those three where it has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

__all__ = ["tree_flatten", "tree_leaves", "tree_map", "tree_unflatten"]


def _map(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, dict):
        copied = tree.copy()  # an OrderedDict stays one
        copied.update((key, _map(function, value)) for key, value in tree.items())
        return copied
    if isinstance(tree, (list, tuple)):
        parts = [_map(function, part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return function(tree)


def _leaves(tree: Any) -> list[Any]:
    found: list[Any] = []
    _map(found.append, tree)
    return found


def _flatten(tree: Any) -> tuple[list[Any], Any]:
    return _leaves(tree), tree


def _unflatten(leaves: list[Any], spec: Any) -> Any:
    remaining = iter(leaves)
    return _map(lambda _: next(remaining), spec)


if TYPE_CHECKING:
    tree_flatten, tree_leaves, tree_map, tree_unflatten = _flatten, _leaves, _map, _unflatten
else:
    try:
        from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten
    except ImportError:
        tree_flatten, tree_leaves, tree_map, tree_unflatten = _flatten, _leaves, _map, _unflatten
