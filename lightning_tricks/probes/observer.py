"""Turns the calls of one step into tallies. Whatever goes wrong here is noted and never reaches the training."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.nn.activations import Activation, BoundActivation
from lightning_tricks.probes.frames import Frames, strip_wrappers
from lightning_tricks.probes.notes import Notes
from lightning_tricks.probes.operations import Operation, WeightedCall
from lightning_tricks.probes.tallies import ActivationTally, Derived, Signal, Tallies, WeightedTally
from lightning_tricks.stats import ActivationSums, Sample, SquareSums, WeightedSums, sample

_wrapped = getattr(torch._C._functorch, "is_functorch_wrapped_tensor", lambda tensor: False)
Call = Callable[..., Any]


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
        self.frames = Frames(model)
        self.tallies = Tallies()
        self.closed = False
        self._layers = tuple(layers)
        self._max_patterns = max_patterns
        self._parameters = {id(p): strip_wrappers(name) for name, p in model.named_parameters()}
        self._notes = Notes()
        self._axis: int | None = None
        self._in_autograd_grad = False
        self._handles: list[Any] = []

    # --- calls -------------------------------------------------------------------------------------------------

    def weighted(self, operation: Operation, func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = None
        if self._listening:
            with self.careful(operation.name):
                call = operation.read(args, kwargs, self.is_parameter)
        output = func(*args, **kwargs)
        if call is not None:
            name = self.frames.name("weighted", operation.name)
            with self.careful(name):
                self._count_weighted(name, operation, call, output[0] if isinstance(output, tuple) else output)
        return output

    def activation(self, entry: Activation, func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        a = args[0] if args else kwargs.get("input")
        if not self._listening or not isinstance(a, Tensor):
            return func(*args, **kwargs)
        name = self.frames.name("activation", entry.name)
        pending: Pending | None = None
        with self.careful(name):
            if self._can_count(name, a):
                pending = self._before(name, entry.bind(*args[1:], **kwargs), a, _in_place(func, args, kwargs))
        output = func(*args, **kwargs)
        if pending is not None:
            with self.careful(name):
                self._after(pending, output)
        return output

    def multiplication(self, func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An activation whose output multiplies something else is a gate."""
        output = func(*args, **kwargs)
        if self._listening:
            for this, other in (args[:2], args[1::-1]) if len(args) >= 2 else ():
                note = self._notes.read(this)
                if not isinstance(note, ActivationTally):
                    continue
                if not isinstance(other, Tensor) or other.dim() == 0:
                    self._notes.write(output, note)
                elif not self.is_parameter(other) and (other.requires_grad or not torch.is_grad_enabled()):
                    note.gate = True
        return output

    def passage(self, func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What is linear keeps its origin: a shifted activation can still become a gate."""
        output = func(*args, **kwargs)
        if self._listening and args and isinstance(output, Tensor):
            tensors = [argument for argument in args if isinstance(argument, Tensor)]
            note = self._notes.read(tensors[0]) if len(tensors) == 1 else None
            if note is not None:
                self._notes.write(output, Derived(note.name) if isinstance(note, WeightedTally) else note)
        return output

    def normalisation(self, channels_last: bool, func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._listening and args and isinstance(args[0], Tensor):
            self._axis = -1 if channels_last else min(1 - args[0].dim(), -1)
        output = func(*args, **kwargs)
        if self._listening and func is F.batch_norm:  # linear: per unit it scales and shifts
            note = self._notes.read(args[0])
            if isinstance(note, (WeightedTally, Derived)):
                self._notes.write(output, Derived(note.name))
        return output

    def gradient_of(self, func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """torch.autograd.grad, as in a gradient penalty: its gradients are no error signals."""
        self._in_autograd_grad = True
        try:
            return func(*args, **kwargs)
        finally:
            self._in_autograd_grad = False

    def backward(self, func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        losses = args[0] if args else kwargs.get("tensors")
        with self.careful("loss"):
            for loss in [losses] if isinstance(losses, Tensor) else list(losses or ()):
                if loss.numel() == 1 and not _wrapped(loss):
                    value = loss.detach().reshape(())
                    self.tallies.loss = value if self.tallies.loss is None else self.tallies.loss + value
                self._list_custom_functions(loss)
        return func(*args, **kwargs)

    def careful(self, name: str) -> Careful:
        """A block whose errors are listed under ``name`` as not seen and go no further."""
        return Careful(self, name)

    def close(self) -> None:
        self.closed = True
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._notes.clear()

    def is_parameter(self, tensor: Any) -> bool:
        """Whether a tensor is a parameter of the model or a view of one."""
        return self.parameter_name(tensor) is not None

    def parameter_name(self, tensor: Any) -> str | None:
        if not isinstance(tensor, Tensor):
            return None
        return self._parameters.get(id(tensor)) or self._parameters.get(id(tensor._base))

    # --- counting ----------------------------------------------------------------------------------------------

    @property
    def _listening(self) -> bool:
        return not self.closed and self.frames.current is not None and torch._C._current_graph_task_id() == -1

    def _can_count(self, name: str, tensor: Tensor) -> bool:
        if not any(fnmatchcase(name, glob) for glob in self._layers):
            return False
        reason = (
            "its values are complex numbers"
            if tensor.is_complex()
            else "it runs inside a function transform (vmap, grad)"
            if _wrapped(tensor)
            else "its values are no real numbers"
            if not tensor.is_floating_point() or tensor.layout not in (torch.strided, torch.sparse_coo)
            else None
        )
        if reason is not None:
            self.tallies.not_seen[name] = reason
        return reason is None and tensor.dim() > 0

    def _count_weighted(self, name: str, operation: Operation, call: WeightedCall, y: Tensor) -> None:
        self._axis = call.output_axis
        if not self._can_count(name, y):
            return
        if call.inner:
            self.tallies.not_seen[name] = call.inner
        x = call.input
        known = self._notes.read(x)
        moments: Any = None
        if isinstance(known, ActivationTally) and known.axis == call.input_axis and known.sums is not None:
            moments = known.sums.joint.activation
        elif x is not None and call.input_axis and x.is_floating_point():
            moments = sample(x, call.input_axis, self._max_patterns)
        sums = WeightedSums.of(moments, sample(y, call.output_axis, self._max_patterns), y)
        tally = self.tallies.weighted.get(name)
        if tally is None:
            weight = call.weight.detach()
            tally = self.tallies.weighted[name] = WeightedTally(
                name,
                operation.name,
                self.tallies.tick(),
                call.output_axis,
                Signal(),
                dataclasses.replace(call, input=None, weight=weight, bias=_detached(call.bias)),
                self.parameter_name(call.weight),
                known.name if isinstance(known, (WeightedTally, Derived)) else None,
                _fan_in(call),
            )
        tally.add(sums)
        tally.elements += y.numel()
        self._notes.write(y, tally)
        self._listen(y, tally.signal, call.output_axis)
        if call.weight.requires_grad and not y.requires_grad:
            self.tallies.not_seen[f"{name} (error signal)"] = (
                "it ran without gradients although its weight is trainable, as reentrant checkpointing does"
            )

    def _before(self, name: str, g: BoundActivation, a: Tensor, in_place: bool) -> Pending:
        source = self._notes.read(a)
        axis = self._axis or (-1 if a.dim() < 4 else 1 - a.dim())
        if isinstance(source, (WeightedTally, ActivationTally)):
            axis = source.axis
        axis = axis if -axis <= a.dim() else -1
        view = in_place and a._is_view()
        tally = self.tallies.activations.get(name)
        if tally is None:
            shared = isinstance(source, WeightedTally) and not view
            signal = source.signal if shared else Signal()
            tally = ActivationTally(name, g.name, self.tallies.tick(), axis, signal)
            self.tallies.activations[name] = tally
        if not view and not isinstance(source, WeightedTally):
            self._listen(a, tally.signal, axis)
        return Pending(tally, g, sample(a, axis, self._max_patterns, copy=in_place), view and a.requires_grad)

    def _after(self, pending: Pending, output: Tensor) -> None:
        tally, g, before, overwritten = pending
        after = sample(output, tally.axis, self._max_patterns)
        with torch.no_grad():
            slope = g.derivative(before.values, after.values)
            tally.add(ActivationSums.of(g, before, after, output, slope))
        self._notes.write(output, tally)
        if overwritten:  # a hook on a view that is overwritten never fires: delta = g'(a) dLoss/dg
            self._listen(output, tally.signal, tally.axis, slope)

    def _listen(self, tensor: Tensor, signal: Signal, axis: int, slope: Tensor | None = None) -> None:
        if tensor.requires_grad:
            self._handles.append(tensor.register_hook(functools.partial(self._hear, signal, axis, slope)))

    def _hear(self, signal: Signal, axis: int, slope: Tensor | None, gradient: Tensor) -> None:
        if self.closed or self._in_autograd_grad:
            return
        with self.careful("error signals"), torch.no_grad():
            delta = sample(gradient, axis, self._max_patterns).values
            signal.add(SquareSums.of(delta if slope is None else delta * slope))

    def _list_custom_functions(self, loss: Tensor) -> None:
        """Walks the graph behind the loss for functions written in Python, whose inside nobody sees."""
        seen: set[Any] = set()
        waiting = [loss.grad_fn]
        while waiting and len(seen) < 20_000:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if isinstance(node, torch.autograd.function.BackwardCFunction):
                name = type(node).__name__.removesuffix("Backward")
                if name != "CheckpointFunction":
                    self.tallies.not_seen[name] = "custom autograd function: nothing inside it is seen"
            waiting += [following for following, _ in node.next_functions]


class Careful:
    """The probe's own arithmetic: unseen by any function mode, and an exception in it is noted, not raised."""

    def __init__(self, observer: Observer, name: str) -> None:
        self._observer, self._name = observer, name

    def __enter__(self) -> None:
        self._unseen = torch._C.DisableTorchFunction()
        self._unseen.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        self._unseen.__exit__(kind, error, trace)
        if isinstance(error, Exception):
            self._observer.tallies.not_seen[self._name] = f"could not be read: {type(error).__name__}: {error}"
            return True
        return False


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()


def _in_place(func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    name = getattr(func, "__name__", "")
    return name.endswith("_") or bool(kwargs.get("inplace")) or any(argument is True for argument in args[1:])


def _fan_in(call: WeightedCall) -> int:
    weight = call.weight
    if call.layout == "rows":
        return weight[0].numel() if len(weight) else 0
    if call.layout == "columns":
        return weight.shape[-2]
    if call.layout == "transposed":
        return weight.shape[0] // call.groups * weight[0, 0].numel()
    return weight.shape[-1] if weight.dim() else 1
