"""Where in a network a change goes: the outermost calls of a step with what they are given, and the last activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from lightning_tricks._compat.torch_modules import DropoutNd, hear_calls
from lightning_tricks.activations import activation_of
from lightning_tricks.experiments.arms.functions import Called, LastFunction
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training.steps import cloned
from lightning_tricks.experiments.training.training import Training
from lightning_tricks.model.batches import tensors_in
from lightning_tricks.model.isolated import isolated
from lightning_tricks.model.layers import is_linear, is_weighted

_SOFTMAXES = (nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d)
_THROUGH = (nn.Identity, DropoutNd)


@dataclass
class Places:
    """What one step shows of a network.

    Args:
        calls: (path, arguments, keyword arguments) of the outermost calls of modules with parameters, in their order.
        last_activation: The path of an activation behind the last weighted layer; None where there is none.
        first_weighted: The first weighted layer that runs.
        output: What the last of the calls gave.
        last_function: The activation that the network calls as a function behind its last weights.
        joined: The paths of linear layers and convolutions whose output goes unchanged into another one.
    """

    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    last_activation: str | None = None
    first_weighted: nn.Module | None = None
    output: Any = None
    last_function: Called | None = None
    joined: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, training: Training, batch: Any) -> Places:
        """Read them off a loss, computed in evaluation mode by a training of its own."""
        reader = _Reader(training)
        with isolated(training.module), torch.enable_grad(), reader, reader.functions:
            training.loss(batch)
        reader.places.last_function = reader.functions.last
        return reader.places

    def forward(self, model: nn.Module, batch: Any = None) -> Any:
        """Run the outermost calls as they were, in any network with these paths."""
        if not self.calls:
            raise NotAskedError("no module of it is called")
        found = None
        for path, args, kwargs in self.calls:
            args, kwargs = cloned(list(args)), cloned(kwargs)
            found = (model.get_submodule(path) if path else model)(*args, **kwargs)
        return found

    @property
    def entry(self) -> tuple[str, Tensor]:
        """The first outermost call that takes a floating-point tensor first, and that tensor.

        Raises:
            NotAskedError: There is none.
        """
        for path, args, _ in self.calls:
            if args and isinstance(args[0], Tensor) and args[0].is_floating_point() and args[0].dim() > 1:
                return path, args[0]
        raise NotAskedError("no module takes numbers of the batch")


class _Reader:
    def __init__(self, training: Training) -> None:
        self.places = Places()
        root = training.module
        self._paths = {id(m): path for path, m in root.named_modules()}
        self._open: list[int] = []
        self._given: tuple[Any, ...] = ()
        self.functions = LastFunction()
        self._linear: dict[int, tuple[Tensor, str]] = {}  # outputs that are linear in a layer's input, by their ids
        self._ends: list[Callable[[], None]] = []

    def __enter__(self) -> None:
        self._ends = [register_module_forward_pre_hook(self._enter).remove, hear_calls(self._leave)]

    def __exit__(self, *error: object) -> None:
        for end in self._ends:
            end()

    def _enter(self, module: nn.Module, args: Any) -> None:
        if id(module) in self._paths and next(module.parameters(), None) is not None:
            if not self._open:
                self._given = tuple(_detached(list(args)))  # a forward may change it
            self._open.append(id(module))
            self.functions.is_inside = True
        self._note_weighted(module, args)

    def _note_weighted(self, module: nn.Module, args: Any) -> None:
        if is_linear(module) and args and id(args[0]) in self._linear:
            self.places.joined.append(self._linear[id(args[0])][1])
        if is_weighted(module):
            self.places.last_activation = self.functions.last = None
            if self.places.first_weighted is None:
                self.places.first_weighted = module

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        path = self._paths.get(id(module))
        if self._open and self._open[-1] == id(module):
            self._open.pop()
            self.functions.is_inside = bool(self._open)
            if not self._open and path is not None:
                self.places.calls.append((path, self._given, _detached(dict(kwargs))))
                self.places.output = output
        if path and isinstance(output, Tensor):
            if is_linear(module):
                self._linear[id(output)] = output, path
            elif isinstance(module, _THROUGH) and args and id(args[0]) in self._linear:
                self._linear[id(output)] = output, self._linear[id(args[0])][1]
        is_leaf = next(module.children(), None) is None
        if path and is_leaf and (activation_of(module) is not None or isinstance(module, _SOFTMAXES)):
            self.places.last_activation = path


def _detached(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if type(tree) in (list, tuple):
        return type(tree)(_detached(value) for value in tree)
    if type(tree) is dict:
        return {key: _detached(value) for key, value in tree.items()}
    return tree


def float_targets(batch: Any) -> Tensor | None:
    """The second tensor of a batch of two, where it holds numbers to be met and not classes."""
    tensors = list(tensors_in(batch))
    if len(tensors) != 2 or not tensors[1].is_floating_point():
        return None
    target = tensors[1]
    return target if bool(((target != 0) & (target != 1)).any()) else None
