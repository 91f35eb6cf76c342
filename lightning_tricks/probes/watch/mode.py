"""Sees every torch function that is called while it is pushed, and hands those that matter to their handlers."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode

from lightning_tricks import activations
from lightning_tricks._compat import torch_functions
from lightning_tricks._compat.torch_optim import UNSCALING
from lightning_tricks.probes.measure import losses, operations
from lightning_tricks.probes.watch import backward, handlers
from lightning_tricks.probes.watch.handlers import Arguments, Function, Handler, Keywords
from lightning_tricks.probes.watch.observer import Observer

_ATTENTION = "functional.multi_head_attention_forward"
_OTHERS: tuple[tuple[Handler, str, str], ...] = (  # handler, places, names in each of them
    (handlers.multiplication, "torch Tensor", "mul mul_ multiply __mul__ __rmul__ __imul__"),
    (handlers.addition, "torch Tensor", "add sub subtract rsub __add__ __radd__ __sub__ __rsub__"),
    (handlers.division, "torch Tensor", "div divide true_divide __truediv__"),
    (handlers.elementwise, "torch Tensor", "__rtruediv__ pow __pow__ __rpow__ where minimum maximum float_power"),
    (handlers.elementwise, "torch Tensor", "clamp clamp_ clip clip_ clamp_min clamp_min_ clamp_max clamp_max_"),
    (handlers.elementwise, "torch Tensor", "abs abs_ exp exp_ sin sin_ cos cos_ square square_ log1p"),
    (handlers.linear, "torch Tensor", "gt ge lt le __gt__ __ge__ __lt__ __le__"),  # of whose signs they are
    (handlers.softmax, "functional torch Tensor", "softmax log_softmax"),
    (handlers.normalize, "functional", "normalize"),
    (handlers.linear, "torch Tensor", "neg __neg__ mean sum"),
    (handlers.linear, "torch Tensor", "view reshape unsqueeze squeeze expand flatten permute transpose view_as"),
    (handlers.linear, "Tensor torch", "unflatten"),
    (
        handlers.linear,
        "torch Tensor",
        "expand_as __getitem__ contiguous clone to float chunk split tensor_split",
    ),
    (handlers.linear, "torch Tensor joined", "unbind movedim swapaxes narrow split"),
    (handlers.linear, "functional", "adaptive_avg_pool2d"),
    (handlers.linear, "functional torch", "adaptive_avg_pool1d avg_pool1d"),
    (handlers.linear, "functional kernel", "avg_pool2d"),
    (handlers.pooling, "functional", "max_pool1d max_pool2d adaptive_max_pool1d adaptive_max_pool2d"),
    (handlers.dropout, "functional", "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout"),
    (handlers.dropout, "torch", "dropout feature_dropout"),
    (handlers.batch_norm, "functional", "batch_norm"),
    (functools.partial(handlers.other_norm, False), "functional", "instance_norm group_norm"),
    (functools.partial(handlers.other_norm, True), "functional", "layer_norm"),
    (backward.backward, "Tensor autograd", "backward"),
    (backward.gradient_of, "autograd", "grad"),
    (backward.unscaling, "torch", UNSCALING),
)


class ObserverMode(TorchFunctionMode):
    """Calls every function unchanged; those in the table through their handlers.

    The table is that of the moment when the mode is made: whoever has wrapped a function of torch until then is seen.
    """

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self._observer = observer
        self._table = _tables.current()
        self._names = _tables.names
        observer.mode = self

    def __torch_function__(
        self, func: Function, types: Any, args: Arguments = (), kwargs: Keywords | None = None
    ) -> Any:
        observer = self._observer
        frame = observer.modules.current
        if frame is not None:
            frame.seen += 1
        handler = self._table.get(func)
        if handler is None:
            self._list_unseen(func)
            output = func(*args, **(kwargs or {}))
        else:
            output = handler(observer, func, args, kwargs or {})
        if observer.loss_path.following:
            observer.loss_path.follow(args, output)
        return output

    def _list_unseen(self, func: Function) -> None:
        observer = self._observer
        if torch_functions.is_operator(func):
            if observer.active and not observer.modules.outside and not str(func).startswith(("profiler.", "fsdp.")):
                observer.tallies.not_seen[str(func)] = "called through torch.ops: nothing inside it is seen"
        elif (name := getattr(func, "__name__", "")) in self._names and observer.active:
            observer.tallies.not_seen[name] = "a function of this name was called that is not torch's own"


def _call(observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    return func(*args, **kwargs)


def _attention(observer: Observer, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    if observer.closed or observer.mode is None:
        return func(*args, **kwargs)
    inside = torch_functions.opened(func) if torch_functions.is_torchs(func) else None
    if inside is None or observer.inside_attention:  # asked again from inside: it was not opened
        observer.tallies.not_seen[func.__name__] = "nothing inside of this function is seen: it is not as torch's was"
        return func(*args, **kwargs)
    observer.inside_attention = True
    try:
        with observer.mode:
            return inside(*args, **kwargs)
    finally:
        observer.inside_attention = False


def _unwrapped(
    own: Function | None,
    name: str,
    handler: Handler,
    observer: Observer,
    func: Function,
    args: Arguments,
    kwargs: Keywords,
) -> Any:
    """A wrapper has run when torch's own function inside it tells of the call: now only that is to run.

    A function that took the place of torch's, and tells of its calls itself, runs as it is.
    """
    telling = torch_functions.caller(name)
    return handler(observer, func if telling is None else own or telling, args, kwargs)


class _Tables:
    """The handlers by function, made anew when somebody has put another function in the place of one of torch's."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self._table: dict[Function, Handler] = {}
        self._state: tuple[Any, ...] = ()

    def current(self) -> Mapping[Function, Handler]:
        state = (*activations.entries(), *torch_functions.state())
        if state != self._state:
            self._table = self._build()
            self._state = state
        return self._table

    def _build(self) -> dict[Function, Handler]:
        table: dict[Function, Handler] = {
            function: functools.partial(_unwrapped, None, name, _call)
            for name, function in torch_functions.patched().items()
        }
        for functions, name, handler in _handled():
            for function, own in functions.items():
                plain = own is function or (own is None and torch_functions.is_torchs(function))
                table[function] = handler if plain else functools.partial(_unwrapped, own, name, handler)
        self.names = frozenset(entry.name for entry in activations.entries()) | {
            name.partition(".")[2] for name in operations.FUNCTIONS
        }
        return table


def _handled() -> Iterator[tuple[Mapping[Function, Function | None], str, Handler]]:
    """Functions, each with torch's own that it leads to, the name of that, and what handles their calls."""
    for entry in activations.entries():
        yield entry.functions(), entry.name, functools.partial(handlers.activation, entry)
    for place_and_name, operation in operations.FUNCTIONS.items():
        yield _resolved(place_and_name, functools.partial(handlers.weighted, operation))
    for kind in losses.FUNCTIONS:
        yield _resolved(f"functional.{kind.name}", functools.partial(handlers.loss, kind))
    for handler, places, names in _OTHERS:
        for place in places.split():
            for name in names.split():
                yield _resolved(f"{place}.{name}", handler)
    yield _resolved(_ATTENTION, _attention)


def _resolved(place_and_name: str, handler: Handler) -> tuple[Mapping[Function, Function | None], str, Handler]:
    return torch_functions.resolve(place_and_name), place_and_name.partition(".")[2], handler


_tables = _Tables()
