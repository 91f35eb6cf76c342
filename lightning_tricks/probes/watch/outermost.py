"""The call of the model, or of a part of it, that leads to the loss: what it was given, so that it can be run again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from lightning_tricks._compat import torch_functions, torch_tensors
from lightning_tricks._compat.torch_modules import hear_calls, strip_wrappers
from lightning_tricks.model.batches import tensors_in
from lightning_tricks.model.isolated import random_streams
from lightning_tricks.probes.watch.annotations import nodes_behind
from lightning_tricks.probes.watch.module_stack import ModuleStack

_MOST_CALLS = 64  # of a step are told apart


@dataclass(frozen=True)
class Wanted:
    """The targets of a call of a loss.

    Args:
        numbers: As the loss was given them: numbers of classes, or values.
        ignored: The number that is none of a class.
        classes: How many classes there are; 0 where the targets are values.
        elements: Whether they may be elements of a sequence: not where each output says yes or no.
    """

    numbers: Tensor
    ignored: int | None = None
    classes: int = 0
    elements: bool = True


@dataclass
class OutermostCall:
    """A call of a module that the loop around the model made.

    Args:
        module: The module.
        path: Its path in the model.
        args, kwargs: What it was given; the tensors are the step's own, without their graph.
        drew: Whether it drew random numbers.
        autocast: Device type and number format of a surrounding autocast, or None.
        targets: Those of the losses of this step.
    """

    module: nn.Module
    path: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    drew: bool = False
    autocast: tuple[str, torch.dtype] | None = None
    targets: list[Wanted] = field(default_factory=list)


class OutermostCalls:
    """Looks for the first outermost call that a loss depends on; ``found`` once that loss goes backward."""

    def __init__(self, modules: ModuleStack, guard: Callable[[str], AbstractContextManager[Any]]) -> None:
        self.found: OutermostCall | None = None
        self._modules, self._guard = modules, guard
        self._calls: list[tuple[list[Any], OutermostCall]] = []  # with the nodes that made its outputs
        self._targets: list[Wanted] = []
        self._before: list[Tensor] = []
        self._ends: list[Callable[[], None]] = []
        self._devices = {parameter.device for parameter in modules.model.parameters()}
        self._paths = {id(module): strip_wrappers(path) for path, module in modules.model.named_modules()}

    def attach(self) -> None:
        """To be called when the stack of modules is attached, whose hooks are to run first."""
        self._ends = [register_module_forward_pre_hook(self.enter).remove, hear_calls(self._leave)]

    def detach(self) -> None:
        for end in self._ends:
            end()
        self._ends = []
        self._calls, self._targets, self._before = [], [], []

    def note_targets(self, given: dict[str, Any], classes: int, elements: bool) -> None:
        """A loss is given numbers of so many classes; values, where there are none."""
        if self.found is None:
            self._targets.append(Wanted(given["target"].detach(), given.get("ignore_index"), classes, elements))

    def before_backward(self, loss: Tensor) -> None:
        """A loss goes backward: the first call that it depends on is the one."""
        if self.found is None and self._calls:
            wanted = {node: call for nodes, call in reversed(self._calls) for node in nodes}
            met = _behind(loss, wanted)
            self.found = next((call for nodes, call in self._calls if not met.isdisjoint(nodes)), None)
            if self.found is not None:
                self.found.targets = self._targets
                self.detach()

    @property
    def _listening(self) -> bool:
        return self.found is None and not self._modules.paused and not torch_functions.in_backward()

    def enter(self, module: nn.Module, args: Any) -> None:
        """A module is called."""
        if self._listening and self._modules.depth == 1:
            with self._guard("preflight"):
                self._before = random_streams(self._devices)

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        path = self._paths.get(id(module))
        if path is None or not self._listening or self._modules.depth or len(self._calls) >= _MOST_CALLS:
            return
        with self._guard("preflight"):
            tensors = list(tensors_in(output))
            nodes = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
            given = list(tensors_in((args, kwargs)))
            if not nodes or not given or any(map(torch_tensors.in_transform, given)):
                return
            now = random_streams(self._devices)
            drew = any(not torch.equal(one, other) for one, other in zip(self._before, now, strict=False))
            autocast = _autocast(given[0].device.type)
            args, kwargs = _detached(args), _detached(kwargs)
            self._calls.append((nodes, OutermostCall(module, path, args, kwargs, drew, autocast)))


def _detached(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.detach()
    if type(tree) is dict:
        return {key: _detached(value) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(map(_detached, tree))
    return tree


def _autocast(device: str) -> tuple[str, torch.dtype] | None:
    return (device, torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None


def _behind(loss: Tensor, wanted: Iterable[Any]) -> set[Any]:
    """Those of the nodes that a loss depends on."""
    missing, met = set(wanted), set()
    for node in nodes_behind(loss):
        if node in missing:
            missing.discard(node)
            met.add(node)
        if not missing:
            break
    return met
