"""Counts calls of activations and of weighted operations by torch's dispatcher: nothing of the package takes part."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ACTIVATIONS = frozenset(
    [
        "relu",
        "hardtanh",
        "leaky_relu",
        "_prelu_kernel",
        "rrelu_with_noise",
        "elu",
        "celu",
        "selu",
        "tanh",
        "sigmoid",
        "hardsigmoid",
        "hardswish",
        "gelu",
        "silu",
        "mish",
        "softplus",
        "log_sigmoid_forward",
        "softshrink",
        "hardshrink",
        "threshold",
        "relu6",
    ]
)
ALWAYS = frozenset(["convolution", "_convolution", "mkldnn_convolution", "embedding", "_embedding_bag", "_trilinear"])
PRODUCTS = frozenset(["mm", "addmm", "mv", "addmv", "dot", "bmm", "baddbmm", "_addmm_activation", "linear"])
ALIASES = frozenset(
    [
        "t",
        "view",
        "_unsafe_view",
        "reshape",
        "_reshape_alias",
        "expand",
        "permute",
        "transpose",
        "slice",
        "select",
        "unsqueeze",
        "squeeze",
        "clone",
        "_to_copy",
        "detach",
        "alias",
        "unbind",
        "split",
        "split_with_sizes",
        "chunk",
        "as_strided",
        "view_as",
        "narrow",
        "contiguous",
    ]
)
ADDED = frozenset(["addmm", "addmv", "baddbmm", "_addmm_activation"])  # their first argument is no factor


class Count(TorchDispatchMode):
    """How often the forward pass of a model calls an activation or applies weights.

    A product is a weighted operation where a factor is a parameter (a view, a copy, a cast of one), or a matrix that
    was computed of parameters alone, as by ``weight_norm``. Inside a recurrent layer nothing is counted but itself.
    """

    def __init__(self, model: nn.Module, batch: Any) -> None:
        super().__init__()
        self.activations = self.weighted = 0
        self._inside = 0  # recurrent layers that run
        self._parameters = {_place(p) for p in model.parameters()} - {0}
        self._computed: set[int] = set()  # of parameters alone
        self._data = {_place(x) for x in tree_leaves(batch) if isinstance(x, Tensor)} - {0}
        self._kept: list[Any] = []  # so that no place is given to another tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if torch._C._current_graph_task_id() == -1:  # else amid a backward pass
            name = func.overloadpacket.__name__.removesuffix("_")
            if not self._inside:
                self._count(name, args)
            self._follow(func, name, [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)], output)
        return output

    def _count(self, name: str, args: Any) -> None:
        if name in ACTIVATIONS:
            self.activations += 1
        elif name in ALWAYS:
            self.weighted += 1
        elif name in PRODUCTS:
            factors = [x for x in args[name in ADDED :] if isinstance(x, Tensor)][:2]
            of_parameters = [_place(x) in self._parameters for x in factors]
            computed = any(x.dim() == 2 and _place(x) in self._computed for x in factors)
            on_data = any(_place(x) in self._data for x in factors)
            self.weighted += any(of_parameters) != all(of_parameters) or (computed and on_data)

    def _follow(self, func: Any, name: str, given: list[Tensor], output: Any) -> None:
        """Where what was made comes from: data, parameters as they are, or parameters that were computed with."""
        places = {_place(x) for x in given}
        made = [x for x in tree_leaves(output) if isinstance(x, Tensor)]
        if places & self._data:
            made += given[:1] if func._schema.is_mutable else []
            group = self._data
        elif name in ALIASES and places & self._parameters:
            group = self._parameters
        elif places & (self._parameters | self._computed):
            group = self._computed
        else:
            return
        self._kept += made
        new = {_place(x) for x in made} - {0}
        group |= new - (self._parameters | self._computed if group is not self._data else self._parameters)
        if group is self._data:
            self._computed -= new

    def enter(self, *given: Any) -> None:
        if not self._inside and torch._C._current_graph_task_id() == -1:
            self.weighted += 1
        self._inside += 1

    def leave(self, *given: Any) -> None:
        self._inside -= 1


def _place(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # sparse, or inside of a transformation
        return 0


@contextlib.contextmanager
def counting(model: nn.Module, batch: Any) -> Iterator[Count]:
    """Counts inside of the block, in which the model is given the batch."""
    count, hooks = Count(model, batch), []
    for module in model.modules():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            hooks += [module.register_forward_pre_hook(count.enter), module.register_forward_hook(count.leave)]
    try:
        with count:
            yield count
    finally:
        for hook in hooks:
            hook.remove()
