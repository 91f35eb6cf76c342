"""What an observed step knows of itself: which module runs, whose tensors these are, what is to be counted."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_tricks._compat import torch_functions, torch_tensors
from lightning_tricks._compat.torch_modules import strip_wrappers
from lightning_tricks.model.sharded import Gathered
from lightning_tricks.probes.measure.activations import ActivationCounter
from lightning_tricks.probes.measure.gradient_hooks import GradientHooks
from lightning_tricks.probes.measure.loop import LoopTally
from lightning_tricks.probes.measure.regularization import Dropped, RawGradients
from lightning_tricks.probes.measure.tallies import ActivationTally, Derived, Tallies, origin_of
from lightning_tricks.probes.measure.weighted import WeightedCounter
from lightning_tricks.probes.watch.annotations import TensorAnnotations, leaves_alone
from lightning_tricks.probes.watch.error_guard import ErrorGuard
from lightning_tricks.probes.watch.loss_path import LossPath
from lightning_tricks.probes.watch.module_stack import ModuleStack
from lightning_tricks.probes.watch.outermost import OutermostCalls
from lightning_tricks.stats import unreadable


class Observer:
    """The state of one observed step. ``handlers`` ask it what a call is, and hand the call to its counters.

    Args:
        model: The network; its module paths are the names.
        layers: Globs of the names to look at.
        max_patterns: The most patterns per unit that are looked at, or None for all.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], max_patterns: int | None) -> None:
        self.tallies = Tallies()
        self.modules = ModuleStack(model, on_error=self._modules_failed)
        self.gradients = GradientHooks(self.guard, max_patterns)
        self.activations = ActivationCounter(self.tallies, self.gradients, max_patterns)
        self.weighted = WeightedCounter(self.tallies, self.gradients, max_patterns)
        self.annotations = TensorAnnotations()
        self.loss_path = LossPath(self.tallies)
        self.outermost: OutermostCalls | None = None  # looked for where a call is to be run again
        self.mode: TorchFunctionMode | None = None  # that sees the calls
        self.inside_attention = False
        self.partial = False  # whether a layer was left out by its name
        self.closed = False
        self.paused = False
        self.max_patterns = max_patterns
        self.axis: int | None = None  # the dimension of the units in the layer before
        self._layers = tuple(layers)
        named = [(strip_wrappers(name), p) for name, p in model.named_parameters()]
        self._parameters = {id(p): name for name, p in named}
        self._gathered = Gathered(model)
        self.loop = LoopTally(model, named)
        self.raw_gradients = RawGradients()
        self._model = model
        self._buffers: set[int] | None = None

    def attach(self, exits: contextlib.ExitStack) -> None:
        """See the calls of modules until the exits are closed."""
        exits.callback(self.modules.detach)
        self.modules.attach()
        exits.callback(torch_functions.hear_scripted(self._list_scripted))
        if self.outermost is not None:
            exits.callback(self.outermost.detach)
            self.outermost.attach()

    def enter_call(self, module: nn.Module, args: Any) -> None:
        """See a call that had begun already, its forward excepted."""
        self.modules.enter(module, args)
        if self.outermost is not None:
            self.outermost.enter(module, args)

    def pause(self, paused: bool) -> None:
        """Look at nothing from here on, or look again."""
        self.paused = self.gradients.paused = self.modules.paused = paused

    def _list_scripted(self, name: str) -> None:
        if self.active:
            path = (self.modules.current or self.modules.root).path
            self.tallies.not_seen[f"{path}.{name}".lstrip(".")] = "scripted function: nothing inside it is seen"

    def close(self) -> None:
        self.closed = True
        self.gradients.close()
        self.annotations.clear()
        self.loss_path.clear()

    def guard(self, name: str) -> ErrorGuard:
        """A block whose errors are listed under ``name`` as not seen and go no further."""
        return ErrorGuard.listing(self.tallies.not_seen, name)

    @property
    def active(self) -> bool:
        """Whether what is called now is part of the step."""
        if self.closed or self.paused or self.modules.current is None or torch_functions.in_backward():
            return False
        return torch.is_grad_enabled() or not self.modules.outside  # the loop's own metrics are no part of the network

    def name(self, kind: str, function: str, *, apart: bool = False) -> str:
        """The name of the next call of a function; where even that cannot be told, the function's own."""
        try:
            return self.modules.name(kind, function, apart=apart)
        except Exception as error:
            self._modules_failed(error)
            return function

    def _modules_failed(self, error: Exception) -> None:
        self.tallies.not_seen["modules"] = f"could not be read: {type(error).__name__}: {error}"

    def can_count(self, name: str, tensor: Tensor) -> bool:
        """Whether a layer is one of those to look at and its tensor has values."""
        if "*" in self._layers or any(fnmatchcase(name, glob) for glob in self._layers):
            return self.readable(name, tensor)
        self.partial = True
        return False

    def readable(self, name: str, tensor: Tensor) -> bool:
        """Whether a tensor has values that can be counted; why not is listed under ``name``."""
        reason = unreadable(tensor)
        if reason is not None:
            self.tallies.not_seen[name] = reason
        return reason is None

    def is_parameter(self, tensor: Any) -> bool:
        """Whether a tensor is a parameter of the model or a view of one."""
        return self.parameter_name(tensor) is not None

    def is_weight(self, tensor: Any) -> bool:
        """Whether a tensor is a parameter, a view of one, or a matrix that was computed of parameters alone."""
        if self.is_parameter(tensor):
            return True
        if not isinstance(tensor, Tensor) or tensor.dim() != 2 or tensor.grad_fn is None:
            return False
        leaves = leaves_alone(tensor)
        return bool(leaves) and all(id(leaf) in self._parameters for leaf in leaves)

    def parameter_name(self, tensor: Any) -> str | None:
        if not isinstance(tensor, Tensor):
            return None
        known = self._parameters.get(id(tensor)) or self._parameters.get(id(torch_tensors.base(tensor)))
        frame = self.modules.current
        return known if known is not None or frame is None else self._gathered.name(tensor, frame.path)

    def is_buffer(self, tensor: Any) -> bool:
        """Whether a tensor is a buffer of the model, and no scratch of a call."""
        if self._buffers is None:
            self._buffers = {id(b) for b in self._model.buffers()}
        return id(tensor) in self._buffers

    def activation_behind(self, tensor: Any) -> ActivationTally | None:
        """The activation that a tensor is the output of, or was made of by linear operations."""
        origin = origin_of(self.annotations.read(tensor))
        return origin if isinstance(origin, ActivationTally) else None

    def derive(
        self, output: Any, annotation: Any, dropped: Dropped | None = None, start: tuple[int, int] | None = (0, 0)
    ) -> None:
        """Note that a linear operation made ``output`` of the tensor that ``annotation`` is about."""
        derived = Derived(origin_of(annotation), dropped, start)
        for tensor in output if isinstance(output, (tuple, list)) else (output,):
            if isinstance(tensor, Tensor):
                self.annotations.write(tensor, derived)
