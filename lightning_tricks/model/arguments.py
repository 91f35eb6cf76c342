"""What a user may have meant: one check of types for every public entry, and near names of a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

__all__ = ["check_count", "check_module", "checked_globs", "unknown_name"]


def check_module(model: Any, name: str = "model") -> None:
    """A TypeError unless it is a module.

    >>> check_module(nn.ReLU)
    Traceback (most recent call last):
    ...
    TypeError: model must be a torch.nn.Module, got the class ReLU: call it, ReLU(...)
    """
    if isinstance(model, type):
        raise TypeError(
            f"{name} must be a torch.nn.Module, got the class {model.__name__}: call it, {model.__name__}(...)"
        )
    if not isinstance(model, nn.Module):
        shown = f" {model!r}" if isinstance(model, str) else ""
        raise TypeError(f"{name} must be a torch.nn.Module, got {type(model).__name__}{shown}")


def check_count(name: str, value: Any, none_means: str = "") -> None:
    """An error unless it is a whole number of at least 1, or None where that means something.

    >>> check_count("num_batches", "8")
    Traceback (most recent call last):
    ...
    TypeError: num_batches must be a whole number of at least 1, got '8'
    """
    if value is None and none_means:
        return
    wanted = "a whole number of at least 1" + (f", or {none_means}" if none_means else "")
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be {wanted}, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be {wanted.removeprefix('a whole number of ')}, got {value}")


def unknown_name(what: str, name: Any, known: Iterable[str]) -> str:
    """What to say of a name that nobody knows.

    >>> unknown_name("activation", "rellu", ["relu", "tanh"])
    "unknown activation 'rellu': did you mean 'relu'? known are relu, tanh"
    """
    names = list(known)
    near = difflib.get_close_matches(str(name), names, 1, 0.75)
    meant = f": did you mean {near[0]!r}?" if near else ";"
    return f"unknown {what} {name!r}{meant} known are {', '.join(names)}"


def checked_globs(layers: Any) -> list[str]:
    """One glob of names, or several, as a list.

    Raises:
        TypeError: Neither.
    """
    if not isinstance(layers, Sequence):
        raise TypeError(f"layers must be a glob such as 'encoder.*' or a list of them, got {layers!r}")
    return [layers] if isinstance(layers, str) else list(layers)
