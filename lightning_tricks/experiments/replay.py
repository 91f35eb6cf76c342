"""A module that can be called again without the training noticing: as a copy, or where it is too large, as itself."""

from __future__ import annotations

import contextlib
import copy
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_tricks._compat import torch_tensors
from lightning_tricks._compat.compiled import original_of
from lightning_tricks._compat.torch_modules import forward_hooks_of, forward_pre_hooks_of
from lightning_tricks.experiments.patterns import NotAskedError
from lightning_tricks.model.batches import tensors_in
from lightning_tricks.model.isolated import isolated, keep_random_numbers

LARGEST_COPY = 2**30  # bytes
_SHARED = (Dataset, DataLoader, Sampler)  # what a module may hold and no forward changes
_CONTAINERS = (list, dict, set, deque)


@contextlib.contextmanager
def replayable(module: nn.Module, *, draws: bool = True) -> Iterator[tuple[nn.Module, Callable[..., Any]]]:
    """The module to be called, in evaluation mode and without gradient, and the call.

    Every call begins with the random numbers that are next now, which are next again afterwards.

    Args:
        module: What is to be called.
        draws: Whether it is known to draw any: else calls need not begin with the same.

    Raises:
        NotAskedError: It can neither be copied nor be called as it is.
    """
    original = original_of(module)
    devices = {tensor.device for tensor in (*original.parameters(), *original.buffers())}
    with _quiet(), keep_random_numbers(devices):
        other = _copy(original) if _fits(original, devices) else None
        kept: Any = contextlib.nullcontext() if other is not None else _kept(original)
        other = original if other is None else other
        generators = [value for m in other.modules() for value in vars(m).values() if isinstance(value, Generator)]

        def call(*args: Any, **kwargs: Any) -> Any:
            with keep_random_numbers(devices, generators) if draws or generators else contextlib.nullcontext():
                return other(*args, **kwargs)

        with kept, isolated(other, layer_by_layer=True):
            yield other, call


def _fits(module: nn.Module, devices: set[torch.device]) -> bool:
    """Whether there is room for a copy."""
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(module)}
    size = sum(held.values())
    return size <= LARGEST_COPY and all(2 * size < free for free in map(_free, devices))


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    for each in module.modules():
        own = (*each.parameters(recurse=False), *each.buffers(recurse=False), *tensors_in(_containers(each)))
        yield from (tensor for tensor in own if not is_lazy(tensor) and not tensor.is_meta)


def _containers(module: nn.Module) -> list[Any]:
    return [value for key, value in vars(module).items() if not (key.startswith("_") and isinstance(value, dict))]


def _free(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # where the system does not tell
        return float("inf")


def _copy(module: nn.Module) -> nn.Module | None:
    """A deep copy without the hooks of others, which may note calls elsewhere; data sets are shared."""
    held = [value for each in module.modules() for value in _values(each)]
    memo = {id(value): value for value in held if isinstance(value, _SHARED)}
    try:
        other = copy.deepcopy(module, memo)
    except Exception:  # a lock, a file, a tensor with a graph, a generator
        return None
    for each in other.modules():
        for hooks in (forward_hooks_of(each), forward_pre_hooks_of(each)):
            for key in [key for key, hook in hooks.items() if not _is_torchs(hook)]:
                del hooks[key]
    return other


def _values(module: nn.Module) -> Iterator[Any]:
    for value in vars(module).values():
        yield value
        if isinstance(value, (list, tuple)):
            yield from value
        elif isinstance(value, dict):
            yield from value.values()


def _is_torchs(hook: Any) -> bool:
    return (getattr(hook, "__module__", None) or type(hook).__module__).partition(".")[0] == "torch"


@contextlib.contextmanager
def _kept(module: nn.Module) -> Iterator[None]:
    """Attributes, what lists and dictionaries among them hold, and tensors among them are as before.

    Raises:
        NotAskedError: A call may change what cannot be put back.
    """
    modules = list(module.modules())
    hooks = [hook for m in modules for hook in (*forward_hooks_of(m).values(), *forward_pre_hooks_of(m).values())]
    if not all(map(_is_torchs, hooks)):
        raise NotAskedError("it cannot be copied, and hooks of others hang on it")
    versions = [(p, torch_tensors.version(p)) for p in module.parameters()]
    saved = [(m, dict(vars(m))) for m in modules]
    held = [(value, copy.copy(value)) for _, attributes in saved for value in attributes.values() if _changes(value)]
    values = [(t, t.detach().clone()) for m in modules for t in tensors_in(_containers(m))]
    try:
        yield
    finally:
        for each, attributes in saved:
            vars(each).clear()
            vars(each).update(attributes)
        changed = [_put_back(value, before) for value, before in held]
        with torch.no_grad():
            for tensor, before in values:
                tensor.copy_(before)
    if any(changed) or any(torch_tensors.version(p) != version for p, version in versions):
        raise NotAskedError("its forward changes what it keeps")


def _changes(value: Any) -> bool:
    return isinstance(value, _CONTAINERS)


def _put_back(value: Any, before: Any) -> bool:
    """Whether it had changed."""
    ids = [list(map(id, each.values() if isinstance(each, dict) else each)) for each in (value, before)]
    if ids[0] == ids[1] and len(value) == len(before):
        return False
    value.clear()
    value.update(before) if isinstance(value, (dict, set)) else value.extend(before)
    return True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings; straight in the list of filters, or each would be shown once more by the training."""
    ignored: tuple[Any, ...] = ("ignore", None, Warning, None, 0)
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    filters.insert(0, ignored)
    try:
        yield
    finally:
        if ignored in filters:
            filters.remove(ignored)
