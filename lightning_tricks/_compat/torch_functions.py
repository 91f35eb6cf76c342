"""torch's functions: under which names they are offered now, which of them is torch's own, what runs at this moment.

Whoever traces or patches a library puts functions of his own into ``torch.nn.functional``. Torch's function then tells
a function mode that the patch was called, and the patch would run a second time: a mode has to call torch's own.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F

Function = Callable[..., Any]
_HOME = os.path.dirname(torch.__file__) + os.sep
_BUILTIN = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
_PLACES: Mapping[str, Any] = {
    "functional": F,
    "torch": torch,
    "Tensor": torch.Tensor,
    "special": torch.special,
    "linalg": torch.linalg,
    "autograd": torch.autograd,
    "joined": torch.functional,  # einsum and the like, whose names in torch may be patched
    "kernel": getattr(torch._C, "_nn", None),  # what F.linear, F.gelu ... are, whatever has been put in their place
}
_QUESTION = "has_torch_function"
_own: dict[str, Function] = {}  # the latest function of torch's own that was found under a name


@functools.cache
def say_once(consequence: str) -> None:
    """Warn of a name that this torch lacks; never an error, whatever the filters say, as a training goes on."""
    with contextlib.suppress(Warning):
        warnings.warn(f"this version of torch lacks a name that probes use: {consequence}", stacklevel=2)


def unseen() -> AbstractContextManager[None]:
    """A block whose calls no function mode and no tensor subclass sees; where torch has none, they do see them."""
    try:
        return torch._C.DisableTorchFunction()
    except AttributeError:
        say_once("other function modes see what a probe computes")
        return contextlib.nullcontext()


def in_backward() -> bool:
    """Whether a backward pass runs in this thread; where torch does not tell, it is never so."""
    try:
        return torch._C._current_graph_task_id() != -1
    except AttributeError:
        say_once("what activation checkpointing repeats in the backward pass is counted twice")
        return False


def top_function_mode() -> Any:
    """The function mode that sees a call first; None where torch does not tell."""
    current = getattr(torch.overrides, "_get_current_function_mode", None)
    return None if current is None else current()


def is_operator(function: Any) -> bool:
    """Whether it was called through ``torch.ops``."""
    return isinstance(function, _operators())


@functools.cache
def _operators() -> tuple[type, ...]:
    module = getattr(torch, "_ops", None)
    kinds = tuple(getattr(module, name, None) for name in ("OpOverload", "OpOverloadPacket"))
    if None in kinds:
        say_once("calls through torch.ops are not listed as not seen")
    return tuple(kind for kind in kinds if kind is not None)


def legacy_reduction(size_average: bool | None, reduce: bool | None) -> str:
    """What the two arguments that ``reduction`` has replaced ask for.

    >>> legacy_reduction(None, None), legacy_reduction(False, True), legacy_reduction(True, False)
    ('mean', 'sum', 'none')
    """
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"


def is_torchs(function: Any) -> bool:
    """Whether torch made a function, and nobody wrapped it."""
    code = getattr(function, "__code__", None)
    return isinstance(function, _BUILTIN) if code is None else code.co_filename.startswith(_HOME)


def resolve(name: str) -> dict[Function, Function | None]:
    """Every function that a name stands for, each with torch's own that it leads to, or None where nobody knows it.

    Args:
        name: A place and a name in it, such as ``"functional.relu"`` or ``"Tensor.mul"``.

    >>> resolve("functional.relu") == {F.relu: F.relu}
    True
    """
    chain = list(_offered(*name.split(".")))
    own = next((function for function in chain if is_torchs(function)), _own.get(name))
    if own is None:
        return dict.fromkeys(chain)
    _own[name] = own
    return {**dict.fromkeys(chain, own), own: own}


def patched() -> dict[str, Function]:
    """The functions in ``torch.nn.functional`` that are not torch's, by name."""
    functions = {name: f for name, f in vars(F).items() if isinstance(f, types.FunctionType)}
    return {name: function for name, function in functions.items() if not is_torchs(function)}


def state() -> tuple[Any, ...]:
    """Changes whenever somebody puts another function in the place of one of torch's."""
    return (*vars(F).values(), *vars(torch.Tensor).values(), *vars(torch).values(), torch.autograd.backward)


def caller(name: str) -> Function | None:
    """Torch's own function of this name that is telling a function mode of its call right now; None if none is.

    It is made from the code that runs: where a patch was there first, nothing else leads to it.
    """
    frame = inspect.currentframe()
    for _ in range(8):
        frame = None if frame is None else frame.f_back
        code = None if frame is None else frame.f_code
        if code is not None and code.co_name == name and code.co_filename.startswith(_HOME) and not code.co_freevars:
            return _made_of(code)
    return None


@functools.lru_cache(maxsize=256)
def opened(whole: Function) -> Function | None:
    """torch's own multi_head_attention_forward without its first question whether somebody overrides it.

    nn.MultiheadAttention is one call of one function. Asked inside a torch function mode, that question is always
    answered with yes and the call comes back whole. The function's own code with one global name replaced goes on to
    its projections, which the mode then sees one by one; every operation is the one that would have run. None for a
    function that does not ask: it cannot be opened.
    """
    if not isinstance(whole, types.FunctionType) or _QUESTION not in whole.__code__.co_names:
        return None
    names = {**whole.__globals__, _QUESTION: lambda tensors: False}
    inside = types.FunctionType(whole.__code__, names, whole.__name__, whole.__defaults__, whole.__closure__)
    inside.__kwdefaults__ = whole.__kwdefaults__
    return inside


def hear_scripted(listener: Callable[[str], None]) -> Callable[[], None]:
    """Tell the name of every scripted or traced function that Python calls, until what is returned is called.

    No function mode hears of them. Without a ``__call__`` to put another one in the place of nothing is told.
    """
    if not _listeners:
        own = _SCRIPTED.__call__

        @functools.wraps(own)
        def call(function: Any, *args: Any, **kwargs: Any) -> Any:
            for each in tuple(_listeners):
                each(str(getattr(function, "name", "")) or "scripted function")
            return own(function, *args, **kwargs)

        try:
            _SCRIPTED.__call__ = call
        except (AttributeError, TypeError):
            return lambda: None
        _before.append(own)
    _listeners.append(listener)

    def end() -> None:
        if listener in _listeners:
            _listeners.remove(listener)
            if not _listeners:
                _SCRIPTED.__call__ = _before.pop()

    return end


_SCRIPTED: Any = torch.jit.ScriptFunction
_listeners: list[Callable[[str], None]] = []
_before: list[Any] = []


def _made_of(code: types.CodeType) -> Function:
    return types.FunctionType(code, vars(F), code.co_name)


def _offered(place: str, name: str) -> Iterator[Function]:
    where = _PLACES[place]
    for each in where.__mro__ if isinstance(where, type) else (where,):
        function = vars(each).get(name) if isinstance(each, type) else getattr(each, name, None)
        while callable(function):
            yield function
            function = getattr(function, "__wrapped__", None)
