"""nn.MultiheadAttention is one call of one function; this lets the linear operations inside it be seen."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

_QUESTION = "has_torch_function"


def opened(whole: Callable[..., Any]) -> Callable[..., Any] | None:
    """torch's own multi_head_attention_forward without its first question whether somebody overrides it.

    Asked inside a torch function mode, that question is always answered with yes and the call comes back whole. The
    function's own code with one global name replaced goes on to its projections, which the mode then sees one by one;
    every operation is the one that would have run. None for a function that does not ask: it cannot be opened.
    """
    if not isinstance(whole, types.FunctionType) or _QUESTION not in whole.__code__.co_names:
        return None
    names = {**whole.__globals__, _QUESTION: lambda tensors: False}
    inside = types.FunctionType(whole.__code__, names, whole.__name__, whole.__defaults__, whole.__closure__)
    inside.__kwdefaults__ = whole.__kwdefaults__
    return inside
