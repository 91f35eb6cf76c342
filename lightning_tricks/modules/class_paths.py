"""Classes by their paths, as command lines and configuration files name them."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from torch import nn


def class_of(path: str, package: str) -> Any:
    """``"torch.optim.Adam"``, or ``"Adam"`` of the package.

    Raises:
        ValueError: There is no such name; the message has the nearest.

    >>> class_of("SGD", "torch.optim") is class_of("torch.optim.SGD", "torch.optim")
    True
    """
    module_name, _, name = path.rpartition(".")
    module_name = module_name or package
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"{path!r} cannot be imported: {error}") from error
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, dir(module), 1)
        raise ValueError(f"{module_name} has no {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return getattr(module, name)


def metric_of(name: str, **options: Any) -> Any:
    """A metric of torchmetrics, by name or class path.

    Raises:
        ValueError: There is no such metric, or it is none for these options.

    >>> metric_of("Accuracy", task="multiclass", num_classes=3)
    MulticlassAccuracy()
    """
    kind = class_of(name, "torchmetrics")
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the metric {name!r} is none for this task: {error}") from error


def network_of(network: nn.Module | Mapping[str, Any]) -> nn.Module:
    """A module, or what ``{"class_path": ..., "init_args": {...}}`` makes.

    ``init_args`` may hold further ones; ``args``, a list, is what a class takes by position, as ``nn.Sequential`` does.

    Raises:
        TypeError: Neither; or what was made is no module.

    >>> network_of({"class_path": "Linear", "init_args": {"in_features": 4, "out_features": 2}})
    Linear(in_features=4, out_features=2, bias=True)
    """
    made = _made(network)
    if not isinstance(made, nn.Module):
        raise TypeError(
            f"network has to be a module, or {{'class_path': ..., 'init_args': {{...}}}} of one, got {network!r}"
        )
    return made


def _made(value: Any) -> Any:
    if isinstance(value, Mapping) and "class_path" in value:
        options = {name: _made(option) for name, option in (value.get("init_args") or {}).items()}
        positional = [_made(item) for item in value.get("args") or ()]
        return class_of(value["class_path"], "torch.nn")(*positional, **options)
    return value
