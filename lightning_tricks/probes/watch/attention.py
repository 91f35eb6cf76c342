"""nn.MultiheadAttention is one call of one function; this lets the linear operations inside it be seen."""

from __future__ import annotations

import types
from typing import Any

import torch.nn.functional as F


def call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """torch's own multi_head_attention_forward, run without its first question whether somebody overrides it.

    Asked inside a torch function mode, that question is always answered with yes and the call comes back whole. The
    function's own code with one global name replaced goes on to its projections, which the mode then sees one by one;
    every operation is the one that would have run.
    """
    whole = F.multi_head_attention_forward
    names = {**whole.__globals__, "has_torch_function": lambda tensors: False}
    inside = types.FunctionType(whole.__code__, names, whole.__name__, whole.__defaults__, whole.__closure__)
    inside.__kwdefaults__ = whole.__kwdefaults__
    return inside(*args, **kwargs)
