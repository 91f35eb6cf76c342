"""What is known of a tensor: what was noted about it, and the graph behind it."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Container, Iterator
from typing import Any

import torch
from torch import Tensor

from lightning_tricks._compat import torch_tensors

_NOTHING: tuple[weakref.ref[Tensor] | None, int, Any] = (None, 0, None)
_MOST_NODES = 20_000


class TensorAnnotations:
    """A mapping from tensors, by identity, that keeps none of them alive and forgets what has been overwritten."""

    def __init__(self) -> None:
        self._annotations: dict[int, tuple[weakref.ref[Tensor] | None, int, Any]] = {}

    def write(self, tensor: Tensor, annotation: Any) -> None:
        self._annotations[id(tensor)] = (weakref.ref(tensor), torch_tensors.version(tensor), annotation)

    def read(self, tensor: Any) -> Any:
        """The annotation of a tensor, or None.

        An identity that a dead tensor left to a new one does not count, nor does a tensor changed in place since.
        """
        reference, version, annotation = self._annotations.get(id(tensor), _NOTHING)
        if reference is None or reference() is not tensor:
            return None
        return annotation if version == torch_tensors.version(tensor) else None

    def __len__(self) -> int:
        return len(self._annotations)

    def clear(self) -> None:
        self._annotations.clear()


# Checkpointing's is listed by the layers inside it; FSDP2's hands its input on.
_PASSING_ON = ("CheckpointFunction", "RegisterPostBackwardFunction")


def graph_behind(loss: Tensor) -> tuple[list[str], list[Tensor]]:
    """What a loss is made of: the autograd functions written in Python, by name, and the leaves that need a gradient.

    Nobody sees what such functions do inside.

    >>> class Double(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x): return 2 * x
    ...     @staticmethod
    ...     def backward(ctx, gradient): return 2 * gradient
    >>> graph_behind(Double.apply(torch.ones(1, requires_grad=True)).sum())
    (['Double'], [tensor([1.], requires_grad=True)])
    """
    functions: list[str] = []
    leaves: list[Tensor] = []
    for node in nodes_behind(loss):
        if not node.next_functions and (leaf := getattr(node, "variable", None)) is not None:
            leaves.append(leaf)
        elif isinstance(node, torch.autograd.function.BackwardCFunction):
            name = type(node).__name__.removesuffix("Backward")
            if name not in _PASSING_ON:
                functions.append(name)
    return functions, leaves


# Functions of tensors alone, each with an edge in the graph for every tensor that it was given.
_OF_EDGES = frozenset(
    f"{name}Backward0"
    for name in (
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Neg",
        "Exp",
        "Mm",
        "T",
        "Permute",
        "Transpose",
        "Expand",
        "Unsqueeze",
        "Slice",
    )
) | {"ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "CloneBackward0", "ToCopyBackward0"}
_FEW_NODES = 32


def leaves_alone(tensor: Tensor) -> list[Tensor]:
    """The leaves that a tensor was computed of, if of nothing else; empty where it may have been.

    Data have no edge in the graph, so every function has to be one of those that show what they were given.

    >>> weights = torch.ones(2, 3, requires_grad=True)
    >>> scales = torch.ones(2, 1, requires_grad=True)
    >>> [len(leaves_alone(x)) for x in ((weights * scales).T, weights.exp(), weights * torch.ones(3), weights.relu())]
    [2, 1, 0, 0]
    """
    leaves: list[Tensor] = []
    for count, node in enumerate(nodes_behind(tensor)):
        if not node.next_functions and (leaf := getattr(node, "variable", None)) is not None:
            leaves.append(leaf)
            continue
        without_edge = any(before is None for before, _ in node.next_functions)
        if without_edge or count >= _FEW_NODES or type(node).__name__ not in _OF_EDGES:
            return []
    return leaves


def nodes_behind(loss: Tensor, past: Container[Any] = (), most: int = _MOST_NODES) -> Iterator[Any]:
    """The nodes of the autograd graph that a loss was made by, the nearest first; behind those in ``past`` no more.

    >>> x = torch.ones(1, requires_grad=True)
    >>> [type(node).__name__ for node in nodes_behind((2 * x).exp().sum())]
    ['SumBackward0', 'ExpBackward0', 'MulBackward0', 'AccumulateGrad']
    """
    seen: set[Any] = set()
    waiting = deque([loss.grad_fn])
    while waiting and len(seen) < most:
        node = waiting.popleft()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        if node not in past:
            waiting.extend(each for each, _ in node.next_functions)
