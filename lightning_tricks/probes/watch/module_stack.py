"""Which module is running now, and what an operation inside it is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from lightning_tricks._compat import torch_functions
from lightning_tricks._compat.torch_modules import may_take_the_fast_path, strip_wrappers


@dataclass
class Frame:
    """One running module: its path, whether operations take its path as their name, and what was seen inside."""

    path: str
    leaf: bool
    seen: int = 0


@dataclass
class ModuleStack:
    """The stack of running modules of one model, kept by two hooks that see every module while they are attached.

    Global hooks are used because attaching them costs the same for a model of ten thousand modules as for one of three.
    """

    model: nn.Module
    ran: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)
    paused: bool = False  # what runs meanwhile neither counts as run nor as unseen
    forwards: int = 0  # calls of the model, or of a part of it, that the loop around it made
    fast: set[str] = field(default_factory=set)  # modules that nothing looked at, as torch's fast path bears no look
    scripted: set[str] = field(default_factory=set)  # scripted modules that are no part of the model's tree
    step_aside: Callable[[bool], None] = lambda aside: None  # told at the beginning and at the end of such a module
    on_error: Callable[[Exception], None] = lambda error: None  # a hook must not end the call that it only looks at

    def __post_init__(self) -> None:
        self._paths: dict[int, tuple[str, bool] | None] = {}
        metrics: list[str] = []
        for path, module in self.model.named_modules():
            if _is_metric(module) and path:
                metrics.append(f"{path}.")
            if metrics and f"{path}.".startswith(tuple(metrics)):
                self._paths[id(module)] = None  # metrics may call sigmoid, or a network; they are no layers
                continue
            children = [name for name, _ in module.named_children() if name != "parametrizations"]
            self._paths[id(module)] = (strip_wrappers(path), not children)
        self._taken = {known[0] for known in self._paths.values() if known is not None}
        self._stack: list[Frame | None] = []
        self.root = Frame("", leaf=False)
        self._calls: Counter[tuple[str, str]] = Counter()
        self._handles: list[Any] = []
        self._aside: int | None = None  # where on the stack the module lies that takes torch's fast path

    def attach(self) -> None:
        self._handles = [
            register_module_forward_pre_hook(self._entered),
            register_module_forward_hook(self._left, always_call=True),
        ]

    def _entered(self, module: nn.Module, args: Any) -> None:
        depth = len(self._stack)
        try:
            self.enter(module, args)
        except Exception as error:
            self.on_error(error)
            self._stack[depth:] = [None]  # nothing inside of it is looked at

    def _left(self, module: nn.Module, args: Any, output: Any) -> None:
        try:
            self._leave(module, args, output)
        except Exception as error:
            self.on_error(error)

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._stack = []

    def new_batch(self) -> None:
        """Begin a further micro-batch: its first call of a layer continues that layer's first record."""
        self._calls.clear()

    def leaves(self) -> Iterator[tuple[str, nn.Module]]:
        """Paths and modules of the modules without children."""
        for _, module in self.model.named_modules():
            known = self._paths.get(id(module))
            if known is not None and known[1] and known[0]:
                yield known[0], module

    @property
    def current(self) -> Frame | None:
        """The running module of the model, its root between modules, or None inside something foreign."""
        return self._stack[-1] if self._stack else self.root

    @property
    def depth(self) -> int:
        """How many modules are running, one inside the other."""
        return len(self._stack)

    @property
    def outside(self) -> bool:
        """Whether no module is running: what is called now belongs to the loop around the model."""
        return not self._stack

    def name(self, kind: str, function: str, *, apart: bool = False) -> str:
        """The name of the next call of ``function`` here; ``kind`` keeps activations and weighted operations apart.

        ``apart``: it is not what a leaf module is there for, and does not take its name.
        """
        frame = self.current or self.root
        base = frame.path if frame.leaf and frame.path and not apart else f"{frame.path}.{function}".lstrip(".")
        while True:
            self._calls[kind, base] += 1
            count = self._calls[kind, base]
            if count == 1:
                return base
            if f"{base}_{count}" not in self._taken:  # a module may be called "relu_2" by its own right
                return f"{base}_{count}"

    def enter(self, module: nn.Module, args: Any) -> None:
        """A module is called."""
        frame: Frame | None
        if id(module) in self._paths:
            known = self._paths[id(module)]
            frame = None if known is None else Frame(*known)
            if known is not None and not self.paused:
                self.ran.add(known[0])
                self.forwards += not self._stack
        elif _is_metric(module) or (not self._stack and next(module.parameters(), None) is not None):
            frame = None  # a metric, or another network, such as a teacher
        else:
            frame = self.current  # made on the fly or kept in a plain list: part of whoever calls it
            if isinstance(module, torch.jit.ScriptModule) and frame is not None and not self.paused:
                self.scripted.add(f"{frame.path}.{module.original_name}".lstrip("."))
        if self._aside is None and may_take_the_fast_path(module, args):
            self._aside = len(self._stack)
            own = [known[0] for each in module.modules() if (known := self._paths.get(id(each)))]
            self.fast.add(own[0] if own and own[0] else type(module).__name__)
            self.ran.update(own)
            self.step_aside(True)
        self._stack.append(frame)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self._stack:
            return
        frame = self._stack.pop()
        if self._aside == len(self._stack):
            self._aside = None
            self.step_aside(False)
        if frame is None or id(module) not in self._paths or torch_functions.in_backward():
            return  # nothing is looked at while checkpointing repeats a forward inside the backward
        if self._stack and self._stack[-1] is not None:
            self._stack[-1].seen += 1
        given = args[0] if isinstance(args, tuple) and args else None
        if not frame.seen and not self.paused and isinstance(output, torch.Tensor) and output is not given:
            self.opaque.add(frame.path)


def _is_metric(module: nn.Module) -> bool:
    return any(cls.__module__.startswith("torchmetrics.") for cls in type(module).__mro__)
