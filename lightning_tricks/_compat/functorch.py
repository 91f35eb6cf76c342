"""torch.func.vmap for one call per training step: without its search through trees, and with a way below it.

What ``vmap`` spends on flattening and checking its arguments is a tenth of a small training step. The same building
blocks are used here directly; where a version of torch lacks one, ``AVAILABLE`` is False and ``vmap`` itself is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from lightning_tricks._compat import lightning as _lightning

try:
    from torch._C import DisableTorchFunction
    from torch._C._functorch import (
        _add_batch_dim,
        _remove_batch_dim,
        get_unwrapped,
        maybe_get_bdim,
        maybe_get_level,
    )
    from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
    from torch._functorch.vmap import vmap_increment_nesting

    AVAILABLE = True
except ImportError:
    AVAILABLE = False

_is_mapped: Callable[[Tensor], bool]
try:
    from torch._C._functorch import is_batchedtensor as _is_mapped
except ImportError:

    def _is_mapped(value: Tensor) -> bool:
        return torch.func.debug_unwrap(value) is not value


def call_mapped(
    function: Callable[..., tuple[Tensor, list[Tensor]]], *groups: list[Tensor], same_draws: bool = False
) -> tuple[Tensor, Any]:
    """Call a function of lists of tensors for every row of those tensors at once, random numbers drawn for each.

    Args:
        function: Returns a tensor, and a list of tensors that may be longer after the call.
        groups: Lists of tensors ``[K, ...]``; there is at least one tensor.
        same_draws: The same random numbers for all rows.

    >>> call_mapped(lambda a, b: (a[0] @ b[0], []), [torch.ones(3, 2)], [torch.ones(3, 2)])
    (tensor([2., 2., 2.]), [])
    """
    randomness = "same" if same_draws else "different"
    if not AVAILABLE:
        _lightning.warn_once(
            f"torch {torch.__version__} has other building blocks of torch.func.vmap than known here: mapped training "
            "steps of an ensemble go through vmap as a whole, which gives the same losses and takes longer"
        )
        return vmap(function, randomness=randomness)(*groups)
    size = next(tensor.shape[0] for group in groups for tensor in group)
    with vmap_increment_nesting(size, randomness) as level:
        result, others = function(*([_add_batch_dim(tensor, 0, level) for tensor in group] for group in groups))
        return _rows(result, level, size), [_rows(tensor, level, size) for tensor in others]


def _rows(value: Tensor, level: int, size: int) -> Tensor:
    mapped = _is_mapped(value) and maybe_get_level(value) == level
    return _remove_batch_dim(value, level, size, 0) if mapped else value.expand(size, *value.shape)


def is_mapped(value: Any) -> bool:
    """Whether a tensor has one value per member, inside of a mapped call."""
    return isinstance(value, Tensor) and _is_mapped(value)


def on_all(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Inside of a mapped call: hand the tensors ``[K, ...]`` behind mapped ones to a function that knows of all rows.

    Only where ``AVAILABLE`` is True.

    >>> whole = lambda x: x - x.mean(0)  # over the rows, which a mapped function could not see
    >>> call_mapped(lambda a: (on_all(whole, a[0]), []), [torch.tensor([1.0, 3.0])])[0]
    tensor([-1.,  1.])
    """
    interpreter = retrieve_current_functorch_interpreter()
    values = [get_unwrapped(value).movedim(maybe_get_bdim(value), 0) for value in inputs]
    with interpreter.lower(), DisableTorchFunction():
        result = function(*values)
    return _add_batch_dim(result, 0, interpreter.level())
