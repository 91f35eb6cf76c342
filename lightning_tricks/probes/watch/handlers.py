"""What is done with each kind of call: run it exactly once, and have it counted before, after or around that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_tricks._compat import torch_tensors
from lightning_tricks.activations import Activation, by_name, properties_of
from lightning_tricks.probes.measure import losses, normalizations
from lightning_tricks.probes.measure.activations import ActivationCall
from lightning_tricks.probes.measure.losses import LossFunction
from lightning_tricks.probes.measure.operations import Operation
from lightning_tricks.probes.measure.regularization import Dropped, carried
from lightning_tricks.probes.measure.tallies import ActivationTally
from lightning_tricks.probes.measure.targets import start_of
from lightning_tricks.probes.watch import unknown
from lightning_tricks.probes.watch.loss_path import depends_on_network, softmax_axis
from lightning_tricks.probes.watch.observer import Observer

_RELU6 = (("min_val", 0.0), ("max_val", 6.0))
Function = Callable[..., Any]
Arguments = tuple[Any, ...]
Keywords = dict[str, Any]
Handler = Callable[[Observer, Function, Arguments, Keywords], Any]


def weighted(operation: Operation, observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    call = weight = None
    if observer.active:
        with observer.guard(operation.name):
            call = operation.read(args, kwargs, observer.is_weight)
            weight = None if call is None else observer.parameter_name(call.weight)
    output = func(*args, **kwargs)
    if call is not None:
        # What a hook makes the layer's weight of, as the old spectral_norm does, is not used by the layer itself.
        apart = weight is not None and weight.endswith("_orig")
        name = observer.name("weighted", operation.name, apart=apart)
        with observer.guard(name):
            y = output[0] if isinstance(output, tuple) else output
            observer.axis = call.output_axis
            if observer.can_count(name, y):
                source = unknown.settle(observer, name, call.input)
                tally = observer.weighted.count(name, operation, call, y, source, weight)
                if not call.inner:  # what a recurrent kernel gives is no pre-activation: it has activations inside
                    observer.annotations.write(y, tally)
                observer.loss_path.note_tokens(operation.name, args)
    if observer.active and len(args) > 1:
        observer.loss_path.note_product(args[0], args[1], output)
    return output


def activation(entry: Activation, observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    a = _input(args, kwargs)
    if not observer.active or not isinstance(a, Tensor):
        return func(*args, **kwargs)
    g = entry.bind(*args[1:], **kwargs)
    if g.parameters == _RELU6:  # nn.ReLU6 is a hardtanh
        g = by_name("relu6").bind()
    name = observer.name("activation", g.name)
    call: ActivationCall | None = None
    with observer.guard(name):
        if observer.can_count(name, a):
            source, in_place = observer.annotations.read(a), _in_place(func, args, kwargs)
            gate = observer.is_parameter(a)
            call = observer.activations.before(name, g, a, source, observer.axis, in_place=in_place, gate=gate)
    output = func(*args, **kwargs)
    if call is not None:
        with observer.guard(name):
            observer.annotations.write(output, observer.activations.after(call, output))
    return output


def loss(kind: LossFunction, observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """Counted unless its input needs no gradient: then it is a metric."""
    x = _input(args, kwargs)
    output = func(*args, **kwargs)
    if observer.active and torch.is_grad_enabled() and isinstance(x, Tensor) and x.requires_grad and x.numel():
        name = observer.name("loss", kind.name)
        with observer.guard(name), torch.no_grad():
            if observer.readable(name, x):
                given, source = losses.arguments(func, args, kwargs), observer.annotations.read(x)
                path, most = observer.loss_path, observer.max_patterns
                tally = losses.count(
                    name, kind, observer.tallies, func, given, output.detach(), source, most, path.embedded
                )
                tally.bound = path.bound(x)
                if kind.outputs == "classes":
                    layout = path.layout(x, source)
                    tally.laid_out = {} if layout is None else layout.of_classes(x)
                    ignored, weight = given.get("ignore_index", -100), given.get("weight")
                    path.note_classes(name, given["target"], tally.outputs, ignored, weight)
                if observer.outermost is not None:
                    by_number = losses.by_number(kind, given["target"])
                    values = kind.outputs == "values" and kind.chance is None
                    observer.outermost.note_targets(given, tally.outputs if by_number else 0, by_number or values)
    return output


def batch_norm(observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """Counted before it runs, as it is about to update the running statistics."""
    x = _input(args, kwargs)
    source = None
    if observer.active and isinstance(x, Tensor) and x.dim() > 1:
        observer.axis = 1 - x.dim()
        source = unknown.measured(observer, x)
        given = normalizations.arguments(args, kwargs)
        if observer.is_buffer(given["running_mean"]) and observer.is_buffer(given["running_var"]) and x.numel():
            name = observer.name("normalization", "batch_norm")
            with observer.guard(name), torch.no_grad():
                if observer.can_count(name, x):
                    normalizations.count(name, observer.tallies, x, source, given, observer.max_patterns)
    output = func(*args, **kwargs)
    if source is not None:
        observer.derive(output, source)  # linear: per unit it scales and shifts
    return output


def other_norm(channels_last: bool, observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """It only tells in which dimension the units are."""
    x = _input(args, kwargs)
    if observer.active and isinstance(x, Tensor):
        observer.axis = -1 if channels_last else min(1 - x.dim(), -1)
    return func(*args, **kwargs)


def dropout(observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """Linear, with a factor per element; what it drops is noted on the output."""
    x = _input(args, kwargs)
    source, dropped = None, None
    if observer.active and isinstance(x, Tensor):
        source = unknown.measured(observer, x)
        with observer.guard("dropout"):
            dropped = Dropped.of(observer.name("dropout", func.__name__), func.__name__, args, kwargs)
    output = func(*args, **kwargs)
    if dropped is not None or source is not None:
        observer.derive(output, source, dropped, getattr(source, "start", (0, 0)))
    return output


def linear(observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """What is linear keeps its origin: a shifted activation can still become a gate."""
    source = None
    if observer.active and args:
        tensors = [argument for argument in args if isinstance(argument, Tensor)]
        read = unknown.measured if func.__name__ == "flatten" else _annotation
        source = read(observer, tensors[0]) if len(tensors) == 1 else None
    output = func(*args, **kwargs)
    if source is not None:
        start = start_of(func.__name__, args, getattr(source, "start", (0, 0)))
        observer.derive(output, source, carried(source, func.__name__), start)
    if observer.active and args and isinstance(args[0], Tensor):
        observer.loss_path.note_shape(args[0], output)
    _lay_out(observer, func, args, output)
    return output


def addition(observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """Linear, and elementwise."""
    operands = unknown.operands(observer, func, args)
    output = linear(observer, func, args, kwargs)
    unknown.note_sum_or_product(observer, func, args, operands, output)
    _compare(observer, func, args, output)
    return output


def elementwise(observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """Of its operands only the shapes are looked at, and whether it stands where an activation does."""
    operands = unknown.operands(observer, func, args)
    output = func(*args, **kwargs)
    unknown.note(observer, func, args, operands, output)
    _compare(observer, func, args, output)
    return output


def division(observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """Elementwise; by a number it scales."""
    operands = unknown.operands(observer, func, args)
    output = func(*args, **kwargs)
    by_number = len(args) > 1 and not isinstance(args[1], Tensor)
    (unknown.note_sum_or_product if by_number else unknown.note)(observer, func, args, operands, output)
    _compare(observer, func, args, output)
    if observer.active:
        observer.loss_path.note_scale(args[:2], output, inverse=True)
    _lay_out(observer, func, args, output)
    return output


def pooling(observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """An activation that nobody knows is told by what goes in here."""
    if observer.active:
        unknown.measured(observer, _input(args, kwargs))
    return func(*args, **kwargs)


def softmax(observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    output = func(*args, **kwargs)
    x = _input(args, kwargs)
    if observer.active and isinstance(x, Tensor) and x.requires_grad and x.dim():
        name = observer.name("softmax", func.__name__)
        with observer.guard(name):
            axis = softmax_axis(x, args, kwargs)
            observer.loss_path.softmax(name, func.__name__, x, axis, observer.annotations.read(x))
    _lay_out(observer, func, (x,), output)
    return output


def normalize(observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """Vectors of length 1, whose products are cosines."""
    output = func(*args, **kwargs)
    x = _input(args, kwargs)
    if observer.active and isinstance(x, Tensor) and x.requires_grad:
        observer.loss_path.note_direction(output, weights=observer.is_parameter(x))
    return output


def multiplication(observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """An activation whose output multiplies something else is a gate."""
    if not observer.active or len(args) < 2:
        return func(*args, **kwargs)
    one, other = observer.activation_behind(args[0]), observer.activation_behind(args[1])
    operands = unknown.operands(observer, func, args)
    output = func(*args, **kwargs)
    unknown.note_sum_or_product(observer, func, args, operands, output)
    if one is not None or other is not None:
        with observer.guard("gates"):
            _multiply(observer, one, args[1], other, output)
            _multiply(observer, other, args[0], one, output)
    observer.loss_path.note_scale(args, output)
    _lay_out(observer, func, args, output)
    _compare(observer, func, args, output)
    return output


def _lay_out(observer: Observer, func: Function, args: Arguments, output: Any) -> None:
    """Where in the output of a layer the entries of a tensor lie."""
    x = args[0] if args else None
    if observer.active and isinstance(x, Tensor) and isinstance(output, Tensor) and output.requires_grad:
        with observer.guard("layouts"):
            observer.loss_path.note_layout(func.__name__, x, output, observer.annotations.read(x))


def _compare(observer: Observer, func: Function, args: Arguments, output: Any) -> None:
    """Whether an elementwise operation broadcasts the outputs of a batch against its targets."""
    pair = args[-2:]
    if len(pair) < 2 or not observer.active or not observer.loss_path.may_cross(*pair):
        return
    with observer.guard("broadcasts"):
        for x, target in (pair, pair[::-1]):
            given = (target, torch_tensors.base(target))
            fixed = any(observer.is_buffer(tensor) or observer.is_parameter(tensor) for tensor in given)
            if depends_on_network(x) and not target.requires_grad and not fixed:
                function = func.__name__.strip("_")
                name, source = observer.name("broadcast", function), observer.annotations.read(x)
                observer.loss_path.cross(name, function, x, target, source, output)


def _multiply(
    observer: Observer, source: ActivationTally | None, factor: Any, rival: ActivationTally | None, output: Tensor
) -> None:
    if source is None:
        return
    if not isinstance(factor, Tensor) or factor.dim() == 0:
        observer.derive(output, source)
    elif observer.is_parameter(factor) or not (factor.requires_grad or not torch.is_grad_enabled()):
        return  # a learned scale, or a mask
    elif rival is None or properties_of(source.function).two_sided or not properties_of(rival.function).two_sided:
        source.become_gate(rival)


def _annotation(observer: Observer, tensor: Tensor) -> Any:
    return observer.annotations.read(tensor)


def _input(args: Arguments, kwargs: Mapping[str, Any]) -> Any:
    return args[0] if args else kwargs.get("input")


def _in_place(func: Function, args: Arguments, kwargs: Keywords) -> bool:
    name = getattr(func, "__name__", "")
    return name.endswith("_") or bool(kwargs.get("inplace")) or any(argument is True for argument in args[1:])
