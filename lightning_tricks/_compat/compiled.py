"""Compiled code does not show its calls: while a probe looks, the original code runs."""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch

_HOOKS = re.compile(r"Using `torch\.compile\(module\)` when there are global hooks")


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """A block in which compiled modules run their original code; compiled graphs stay as they are for afterwards."""
    if "torch._dynamo" not in sys.modules:  # then nothing is compiled
        yield
        return
    # The frames' hooks fire once more for the wrapper of a compiled module, which they expect. The filter goes straight
    # into the list: warnings.filterwarnings would make every warning that is shown once be shown once more.
    ignored: tuple[Any, ...] = ("ignore", _HOOKS, UserWarning, None, 0)
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    with torch.compiler.set_stance("force_eager"):
        filters.insert(0, ignored)
        try:
            yield
        finally:
            if ignored in filters:
                filters.remove(ignored)


def original_of(module: Any) -> Any:
    """What ``torch.compile`` was given for a compiled module; any other module itself."""
    return getattr(module, "_orig_mod", module)


def has_compiled_parts(module: torch.nn.Module) -> bool:
    """Whether a module, or one inside of it, is compiled."""
    return any(hasattr(each, "_orig_mod") or _compiled_call(each) for each in module.modules())


def _compiled_call(module: Any) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None
