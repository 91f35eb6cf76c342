"""What a batch holds, and how it goes into a model."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Forward", "first_element", "input_and_target", "is_batch", "number_of_samples", "run_model", "tensors_in"]

Forward = Callable[[nn.Module, Any], Any]


def first_element(batch: Any) -> Any:
    """What goes into a model: of a tuple or list the first element, of anything else all of it.

    >>> first_element(("inputs", "targets")), first_element("inputs")
    ('inputs', 'inputs')
    """
    return batch[0] if isinstance(batch, (tuple, list)) else batch


def run_model(model: nn.Module, batch: Any, forward: Forward | None = None) -> Any:
    """``forward(model, batch)``, or the model on the batch's first element."""
    return model(first_element(batch)) if forward is None else forward(model, batch)


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """The tensors in tuples, lists, mappings and dataclasses, however deep, in their order.

    >>> import torch
    >>> [t.item() for t in tensors_in(({"a": torch.tensor(1), "b": "no"}, [torch.tensor(2)]))]
    [1, 2]
    """
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for part in tree.values():
            yield from tensors_in(part)
    elif isinstance(tree, (tuple, list, deque)):
        for part in tree:
            yield from tensors_in(part)
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        for field in dataclasses.fields(tree):
            yield from tensors_in(getattr(tree, field.name, None))


def number_of_samples(batch: Any) -> int:
    """The length of the first tensor in it that has one, whatever it is packed in; 1 where there is none."""
    return next((tensor.shape[0] for tensor in tensors_in(batch) if tensor.dim() > 0), 1)


def input_and_target(batch: Any) -> tuple[Any, Any]:
    """The two entries of a batch: a tuple, a list, a dict or a dataclass.

    Raises:
        TypeError: It has another number of entries.
    """
    if isinstance(batch, dict):
        entries = list(batch.values())
    elif isinstance(batch, (tuple, list)):
        entries = list(batch)
    elif dataclasses.is_dataclass(batch):
        entries = [getattr(batch, field.name) for field in dataclasses.fields(batch)]
    else:
        entries = []
    if len(entries) != 2:
        got = f"{len(entries)} entries" if entries else type(batch).__name__
        raise TypeError(f"a batch must be (x, y), got {got}; for any other, wrap the model in a LightningModule")
    return entries[0], entries[1]


def is_batch(data: Any) -> bool:
    """Whether this is one batch and not a collection of batches."""
    if (
        torch.is_tensor(data)
        or isinstance(data, dict)
        or (dataclasses.is_dataclass(data) and not hasattr(data, "__iter__"))
    ):
        return True
    return isinstance(data, (tuple, list)) and any(torch.is_tensor(entry) for entry in data)
