"""Turns the calls of one step into tallies. Whatever goes wrong here is noted and never reaches the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_tricks.activations import Activation, BoundActivation, by_name
from lightning_tricks.probes.measure.gradient_hooks import GradientHooks
from lightning_tricks.probes.measure.operations import Operation, WeightedCall
from lightning_tricks.probes.measure.tallies import ActivationTally, Derived, Signal, Tallies, WeightedTally, origin_of
from lightning_tricks.probes.watch.annotations import TensorAnnotations
from lightning_tricks.probes.watch.autograd_graph import custom_functions
from lightning_tricks.probes.watch.error_guard import ErrorGuard
from lightning_tricks.probes.watch.module_stack import ModuleStack, strip_wrappers
from lightning_tricks.probes.watch.readable import unreadable
from lightning_tricks.stats import ActivationSums, Sample, WeightedSums, sample

_RELU6 = (("min_val", 0.0), ("max_val", 6.0))
_SQUASHING = {"sigmoid", "hardsigmoid", "tanh", "hardtanh", "softsign"}
Call = Callable[..., Any]
Arguments = tuple[Any, ...]
Keywords = dict[str, Any]


class Pending(NamedTuple):
    """An activation between its input and its output; ``overwritten``: its input is a view that it writes over."""

    tally: ActivationTally
    g: BoundActivation
    before: Sample
    overwritten: bool


class Observer:
    """Receives calls from the function mode, lets each run exactly once, and counts.

    Args:
        model: The network; its module paths are the names.
        layers: Globs of the names to look at.
        max_patterns: The most patterns per unit that are looked at, or None for all.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], max_patterns: int | None) -> None:
        self.modules = ModuleStack(model)
        self.tallies = Tallies()
        self.gradients = GradientHooks(self.tallies.not_seen, max_patterns)
        self.closed = False
        self.paused = False
        self._layers = tuple(layers)
        self.max_patterns = max_patterns
        self._parameters = {id(p): strip_wrappers(name) for name, p in model.named_parameters()}
        self._model = model
        self._buffers: set[int] | None = None
        self.annotations = TensorAnnotations()
        self.axis: int | None = None

    # --- calls -------------------------------------------------------------------------------------------------

    def weighted(self, operation: Operation, func: Call, args: Arguments, kwargs: Keywords) -> Any:
        call = None
        if self.listening:
            with self.guard(operation.name):
                call = operation.read(args, kwargs, self.is_parameter)
        output = func(*args, **kwargs)
        if call is not None:
            name = self.modules.name("weighted", operation.name)
            with self.guard(name):
                self._count_weighted(name, operation, call, output[0] if isinstance(output, tuple) else output)
        return output

    def activation(self, entry: Activation, func: Call, args: Arguments, kwargs: Keywords) -> Any:
        a = args[0] if args else kwargs.get("input")
        if not self.listening or not isinstance(a, Tensor):
            return func(*args, **kwargs)
        g = entry.bind(*args[1:], **kwargs)
        if g.parameters == _RELU6:  # nn.ReLU6 is a hardtanh
            g = by_name("relu6").bind()
        name = self.modules.name("activation", g.name)
        pending: Pending | None = None
        with self.guard(name):
            if self.can_count(name, a):
                pending = self._before(name, g, a, _in_place(func, args, kwargs))
        output = func(*args, **kwargs)
        if pending is not None:
            with self.guard(name):
                self._after(pending, output)
        return output

    def multiplication(self, func: Call, args: Arguments, kwargs: Keywords) -> Any:
        """An activation whose output multiplies something else is a gate."""
        if not self.listening or len(args) < 2:
            return func(*args, **kwargs)
        sources = self._activation_behind(args[0]), self._activation_behind(args[1])
        output = func(*args, **kwargs)
        if sources != (None, None):
            with self.guard("gates"):
                self._multiply(sources, args, output)
        return output

    def passage(self, func: Call, args: Arguments, kwargs: Keywords) -> Any:
        """What is linear keeps its origin: a shifted activation can still become a gate."""
        annotation = None
        if self.listening and args:
            tensors = [argument for argument in args if isinstance(argument, Tensor)]
            annotation = self.annotations.read(tensors[0]) if len(tensors) == 1 else None
        output = func(*args, **kwargs)
        if annotation is not None:
            self.derive(output, annotation)
        return output

    def normalisation(self, channels_last: bool, func: Call, args: Arguments, kwargs: Keywords) -> Any:
        x = args[0] if args else kwargs.get("input")
        if self.listening and isinstance(x, Tensor):
            self.axis = -1 if channels_last else min(1 - x.dim(), -1)
        return func(*args, **kwargs)

    def gradient_of(self, func: Call, args: Arguments, kwargs: Keywords) -> Any:
        """torch.autograd.grad, as in a gradient penalty: its gradients are no error signals."""
        before, self.gradients.deaf = self.gradients.deaf, True
        try:
            return func(*args, **kwargs)
        finally:
            self.gradients.deaf = before

    def backward(self, func: Call, args: Arguments, kwargs: Keywords) -> Any:
        if self.closed or self.paused or _in_backward():  # reentrant checkpointing goes backward inside a backward
            return func(*args, **kwargs)
        losses = args[0] if args else kwargs.get("tensors")
        with self.guard("loss"):
            for loss in [losses] if isinstance(losses, Tensor) else list(losses or ()):
                if loss.numel() == 1 and unreadable(loss) is None:
                    value = loss.detach().reshape(())
                    self.tallies.loss = value if self.tallies.loss is None else self.tallies.loss + value
                for name in custom_functions(loss):
                    self.tallies.not_seen[name] = "custom autograd function: nothing inside it is seen"
        flags = dict(zip(("retain_graph", "create_graph"), args[2:], strict=False))
        flags.update(kwargs)
        keeps = flags.get("retain_graph")
        self.gradients.keeps_graph = bool(flags.get("create_graph") if keeps is None else keeps)
        try:
            return func(*args, **kwargs)
        finally:
            self.gradients.keeps_graph = False

    def operator(self, func: Any) -> None:
        if self.listening and not self.modules.between and not str(func).startswith("profiler."):
            self.tallies.not_seen[str(func)] = "called through torch.ops: nothing inside it is seen"

    def guard(self, name: str) -> ErrorGuard:
        """A block whose errors are listed under ``name`` as not seen and go no further."""
        return ErrorGuard.listing(self.tallies.not_seen, name)

    def close(self) -> None:
        self.closed = True
        self.gradients.close()
        self.annotations.clear()

    def is_parameter(self, tensor: Any) -> bool:
        """Whether a tensor is a parameter of the model or a view of one."""
        return self.parameter_name(tensor) is not None

    def parameter_name(self, tensor: Any) -> str | None:
        if not isinstance(tensor, Tensor):
            return None
        return self._parameters.get(id(tensor)) or self._parameters.get(id(tensor._base))

    def is_buffer(self, tensor: Any) -> bool:
        """Whether a tensor is a buffer of the model, and no scratch of a call."""
        if self._buffers is None:
            self._buffers = {id(b) for b in self._model.buffers()}
        return id(tensor) in self._buffers

    @property
    def listening(self) -> bool:
        """Whether what is called now is part of the step."""
        if self.closed or self.paused or self.modules.current is None or _in_backward():
            return False
        return torch.is_grad_enabled() or not self.modules.between  # the loop's own metrics are no part of the network

    def can_count(self, name: str, tensor: Tensor) -> bool:
        """Whether a layer is one of those to look at and its tensor has values."""
        return any(fnmatchcase(name, glob) for glob in self._layers) and self.readable(name, tensor)

    def readable(self, name: str, tensor: Tensor) -> bool:
        """Whether a tensor has values that can be counted; why not is listed under ``name``."""
        reason = unreadable(tensor)
        if reason is not None:
            self.tallies.not_seen[name] = reason
        return reason is None

    def derive(self, output: Any, annotation: Any, dropout: float = 0.0) -> None:
        """Note that a linear operation made ``output`` of the tensor that ``annotation`` is about."""
        derived = Derived(origin_of(annotation), dropout)
        for tensor in output if isinstance(output, (tuple, list)) else (output,):
            if isinstance(tensor, Tensor):
                self.annotations.write(tensor, derived)

    # --- counting ----------------------------------------------------------------------------------------------

    def _activation_behind(self, tensor: Any) -> ActivationTally | None:
        origin = origin_of(self.annotations.read(tensor))
        return origin if isinstance(origin, ActivationTally) else None

    def _multiply(self, sources: tuple[ActivationTally | None, ...], args: Arguments, output: Tensor) -> None:
        for source, other, rival in ((sources[0], args[1], sources[1]), (sources[1], args[0], sources[0])):
            if source is None:
                continue
            if not isinstance(other, Tensor) or other.dim() == 0:
                self.derive(output, source)
            elif self.is_parameter(other) or not (other.requires_grad or not torch.is_grad_enabled()):
                continue  # a learned scale, or a mask
            elif source.function in _SQUASHING or rival is None or rival.function not in _SQUASHING:
                source.become_gate(rival)

    def _count_weighted(self, name: str, operation: Operation, call: WeightedCall, y: Tensor) -> None:
        self.axis = call.output_axis
        if not self.can_count(name, y):
            return
        if call.inner:
            self.tallies.not_seen[name] = call.inner
        x, unsampled = call.input, None
        moments: Any = None
        known = self.annotations.read(x)
        if isinstance(known, ActivationTally) and known.axis == call.input_axis and known.outputs is not None:
            moments = known.outputs
        elif x is not None and call.input_axis and unreadable(x) is None:
            moments = sample(x, call.input_axis, self.max_patterns)
            unsampled = x if moments.values.numel() < x.numel() and not x.requires_grad else None
        origin = origin_of(known)
        tally = self.tallies.weighted.get(name)
        if tally is None:
            tally = self.tallies.weighted[name] = WeightedTally(
                name,
                operation.name,
                self.tallies.tick(),
                call.output_axis,
                Signal(),
                call.without_input(),
                self.parameter_name(call.weight),
                origin.name if isinstance(origin, WeightedTally) else None,
            )
        tally.add(WeightedSums.of(moments, sample(y, call.output_axis, self.max_patterns), y, unsampled))
        tally.elements += y.numel()
        tally.with_gradient |= torch.is_grad_enabled()
        if isinstance(origin, ActivationTally):
            tally.reads = origin
            origin.readers.add(name)
        if not call.inner:  # what a recurrent kernel gives is no pre-activation: it has activations inside
            self.annotations.write(y, tally)
        self.gradients.listen(y, tally.signal, call.output_axis)
        if call.weight.requires_grad and not y.requires_grad:
            self.tallies.not_seen[f"{name} (error signal)"] = (
                "it ran without gradients although its weight is trainable, as reentrant checkpointing does"
            )

    def _before(self, name: str, g: BoundActivation, a: Tensor, in_place: bool) -> Pending:
        source = self.annotations.read(a)
        axis = self.axis if self.axis is not None else -1 if a.dim() < 4 else 1 - a.dim()
        if isinstance(source, (WeightedTally, ActivationTally)):
            axis = source.axis
        axis = axis if -axis <= a.dim() else -1
        slopes = dict(g.parameters).get("weight")  # PReLU's, per channel: they name the dimension of the units
        by_unit = isinstance(slopes, Tensor) and slopes.numel() > 1
        axis = 0 if a.dim() == 0 else min(1 - a.dim(), -1) if by_unit else axis
        view = in_place and a._is_view()
        shared = isinstance(source, WeightedTally) and source.axis == axis and not view
        tally = self.tallies.activations.get(name)
        if tally is None:
            signal = source.signal if shared and isinstance(source, WeightedTally) else Signal()
            tally = ActivationTally(name, g.name, self.tallies.tick(), axis, signal, gate=self.is_parameter(a))
            tally.weights = source if isinstance(source, WeightedTally) else None
            self.tallies.activations[name] = tally
        if not view and not shared:
            self.gradients.listen(a, tally.signal, axis)
        before = sample(a, axis, self.max_patterns, copy=in_place, dim=0 if by_unit else None)
        return Pending(tally, g, before, view and a.requires_grad)

    def _after(self, pending: Pending, output: Tensor) -> None:
        tally, g, before, overwritten = pending
        after = sample(output, tally.axis, self.max_patterns, dim=before.dim)
        with torch.no_grad():
            slope = g.derivative(before.values, after.values)
            tally.add(ActivationSums.of(g, before, after, output, slope))
        self.annotations.write(output, tally)
        if overwritten:  # a hook on a view that is overwritten never fires: delta = g'(a) dLoss/dg
            self.gradients.listen(output, tally.signal, tally.axis, slope, before.dim)


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


def _in_place(func: Call, args: Arguments, kwargs: Keywords) -> bool:
    name = getattr(func, "__name__", "")
    return name.endswith("_") or bool(kwargs.get("inplace")) or any(argument is True for argument in args[1:])
