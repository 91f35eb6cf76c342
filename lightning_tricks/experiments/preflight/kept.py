"""A module that runs in place: whatever it holds is afterwards as before, or it does not run."""

from __future__ import annotations

import contextlib
import copy
import enum
import functools
import io
import threading
import types
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_tricks._compat import torch_tensors
from lightning_tricks._compat.torch_modules import TRAINER, forward_hooks_of, forward_pre_hooks_of
from lightning_tricks.experiments.preflight.patterns import NotAskedError

SHARED = (Dataset, DataLoader, Sampler)  # what a module may hold and no forward changes
_CONTAINERS = (list, dict, set, deque)
_UNCHANGED = (
    *(type(None), bool, int, float, complex, str, bytes, range, slice, type, enum.Enum, PurePath),
    *(torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format),
    *(types.ModuleType, types.BuiltinFunctionType, type(threading.Lock()), type(threading.RLock())),
)
_OURS = ("lightning_tricks.nn.", "lightning_tricks.surgery.", "lightning_tricks._compat.")


def attributes_of(module: nn.Module) -> list[Any]:
    """What hangs on a module besides its parameters, buffers, children, hooks and Trainer."""
    named = vars(module).items()
    return [value for key, value in named if not (key.startswith("_") and isinstance(value, dict)) and key != TRAINER]


def generators_of(modules: Iterable[nn.Module]) -> list[Generator]:
    """Streams of random numbers that hang on modules; every call begins with the same."""
    return [value for each in modules for value in vars(each).values() if isinstance(value, Generator)]


def is_torchs(hook: Any) -> bool:
    """Whether it is torch's, or one that this package makes a part of a network."""
    home = getattr(hook, "__module__", None) or type(hook).__module__
    return home.partition(".")[0] == "torch" or home.startswith(_OURS)


@contextlib.contextmanager
def kept(module: nn.Module, *, weights: bool = True) -> Iterator[None]:
    """Attributes, what objects among them hold, and tensors among them are as before; a Trainer is out of reach.

    Args:
        module: What is to run.
        weights: Whether there is room to keep the parameters too. Else nothing may run that is known to change them.

    Raises:
        NotAskedError: A call may change what cannot be put back.
    """
    modules = list(module.modules())
    hooks = [hook for m in modules for hook in (*forward_hooks_of(m).values(), *forward_pre_hooks_of(m).values())]
    if not all(map(is_torchs, hooks)):
        raise NotAskedError("it cannot be copied, and hooks of others hang on it")
    if not weights and any(getattr(m, "max_norm", None) is not None for m in modules):
        raise NotAskedError("it cannot be copied, and its forward changes weights: max_norm")
    versions = [(p, torch_tensors.version(p)) for p in module.parameters()]
    saved = [(m, dict(vars(m))) for m in modules]
    containers, tensors = _held(modules)
    held = [(value, copy.copy(value)) for value in containers]
    parameters = [p for p in module.parameters() if weights and not is_lazy(p)]
    values = [(tensor, tensor.detach().clone()) for tensor in (*tensors, *parameters)]
    for each in modules:
        if TRAINER in vars(each):
            vars(each)[TRAINER] = None
    try:
        yield
    finally:
        for each, attributes in saved:
            vars(each).clear()
            vars(each).update(attributes)
        changed = [_put_back(value, before) for value, before in held]
        changed += [torch_tensors.version(p) != version for p, version in versions]
        with torch.no_grad():
            for tensor, before in values:
                if not torch.equal(tensor, before):
                    tensor.copy_(before)
    if any(changed):
        raise NotAskedError("its forward changes what it keeps")


def _held(modules: list[nn.Module]) -> tuple[list[Any], list[Tensor]]:
    """The containers and tensors that modules hold, however deep; of objects the dictionary of their attributes."""
    containers, tensors = list[Any](), list[Tensor]()
    seen = {id(each) for each in modules} | {id(p) for each in modules for p in each.parameters(recurse=False)}
    seen |= set(map(id, generators_of(modules)))
    waiting = [value for each in modules for value in attributes_of(each)]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, (*_UNCHANGED, *SHARED)):
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            tensors.append(value)
            continue
        if isinstance(value, _CONTAINERS):
            containers.append(value)
        elif _is_plain(value):
            containers.append(vars(value))
        waiting.extend(_parts(value))
    return containers, tensors


def _is_plain(value: Any) -> bool:
    """Whether an object is nothing but its attributes; a stream of random numbers or an open file is more."""
    usual = type(value).__reduce__ is object.__reduce__ and type(value).__reduce_ex__ is object.__reduce_ex__
    usual = usual or isinstance(value, types.SimpleNamespace)
    return usual and hasattr(value, "__dict__") and not isinstance(value, (nn.Module, io.IOBase, types.FunctionType))


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        yield from value
    elif isinstance(value, types.FunctionType):
        yield from (cell.cell_contents for cell in value.__closure__ or ())
    elif isinstance(value, types.MethodType):
        yield value.__self__
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, weakref.ReferenceType):
        yield value()
    elif _is_plain(value):
        yield from vars(value).values()
    else:
        raise NotAskedError(f"it cannot be copied, and a call may change the {type(value).__name__} that it holds")


def _put_back(value: Any, before: Any) -> bool:
    """Whether it had changed."""
    ids = [list(map(id, each.values() if isinstance(each, dict) else each)) for each in (value, before)]
    if ids[0] == ids[1] and len(value) == len(before):
        return False
    value.clear()
    value.update(before) if isinstance(value, (dict, set)) else value.extend(before)
    return True
