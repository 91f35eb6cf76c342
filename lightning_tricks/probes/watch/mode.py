"""Sees every torch function that is called while it is pushed, and hands the few that matter to the observer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_tricks import activations
from lightning_tricks.probes.measure import losses, normalizations, operations
from lightning_tricks.probes.watch import attention
from lightning_tricks.probes.watch.observer import Observer

_OPERATORS = (torch._ops.OpOverload, torch._ops.OpOverloadPacket)
Handler = Callable[[Observer, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class ObserverMode(TorchFunctionMode):
    """Calls every function unchanged; those in the table through the observer."""

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self._observer = observer

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        observer = self._observer
        frame = observer.modules.current
        if frame is not None:
            frame.seen += 1
        handler = _TABLE.get(func)
        if handler is not None:
            return handler(observer, func, args, kwargs or {})
        if func is F.multi_head_attention_forward and not observer.closed:
            with self:
                return attention.call(args, kwargs or {})
        if isinstance(func, _OPERATORS):
            observer.operator(func)
        return func(*args, **(kwargs or {}))


def _build_table() -> Mapping[Callable[..., Any], Handler]:
    table: dict[Callable[..., Any], Handler] = {}
    for function, entry in activations.by_function.items():
        table[function] = functools.partial(_activation, entry)
    for function, operation in operations.by_function.items():
        table[function] = functools.partial(_weighted, operation)
    for names, handler in (
        (("mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"), Observer.multiplication),
        (("add", "sub", "rsub", "neg", "__add__", "__radd__", "__sub__", "__rsub__", "__neg__"), Observer.passage),
        (("view", "reshape", "unsqueeze", "squeeze", "expand", "flatten", "permute", "transpose"), Observer.passage),
        (("view_as", "expand_as", "__getitem__", "contiguous", "clone", "to", "float"), Observer.passage),
        (("chunk", "split", "tensor_split", "unbind", "movedim", "swapaxes", "narrow"), Observer.passage),
        (("mean", "sum"), Observer.passage),
    ):
        for name in names:
            for place in (torch, Tensor):
                if hasattr(place, name):
                    table[getattr(place, name)] = handler
    for loss, kind in losses.FUNCTIONS.items():
        table[loss] = functools.partial(losses.call, kind)
    for function in (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout, torch.feature_dropout):
        table[function] = normalizations.dropout
    for function in (F.alpha_dropout, F.feature_alpha_dropout):
        table[function] = Observer.passage
    for function in (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.avg_pool1d, F.avg_pool2d):
        table[function] = Observer.passage
    table[F.batch_norm] = normalizations.batch_norm
    for function in (F.instance_norm, F.group_norm):
        table[function] = functools.partial(_normalisation, False)
    table[F.layer_norm] = functools.partial(_normalisation, True)
    table[Tensor.backward] = table[torch.autograd.backward] = Observer.backward
    table[torch.autograd.grad] = Observer.gradient_of
    return table


def _activation(entry: Any, observer: Observer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return observer.activation(entry, func, args, kwargs)


def _weighted(operation: Any, observer: Observer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return observer.weighted(operation, func, args, kwargs)


def _normalisation(last: bool, observer: Observer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return observer.normalisation(last, func, args, kwargs)


_TABLE = _build_table()
