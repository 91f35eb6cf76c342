"""A module that can be called again without the training noticing: as a copy, or where it is too large, as itself."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import is_lazy

from lightning_tricks._compat.compiled import original_of
from lightning_tricks._compat.torch_modules import forward_hooks_of, forward_pre_hooks_of
from lightning_tricks.experiments.preflight.kept import SHARED, attributes_of, generators_of, is_torchs, kept
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.model.batches import tensors_in
from lightning_tricks.model.isolated import isolated, keep_random_numbers

LARGEST_COPY = 2**30  # bytes


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
    with without_output(), keep_random_numbers(devices):
        fits = _fits(original, devices)
        copied, own = _copy(original) if fits else (None, [])
        other = original if copied is None else copied
        as_before: Any = kept(original, weights=fits) if copied is None else _alone(own, original)
        generators = generators_of(other.modules())

        def call(*args: Any, **kwargs: Any) -> Any:
            with keep_random_numbers(devices, generators) if draws or generators else contextlib.nullcontext():
                return other(*args, **kwargs)

        with as_before, isolated(other, layer_by_layer=True):
            yield other, call


def _fits(module: nn.Module, devices: set[torch.device]) -> bool:
    """Whether there is room for a copy."""
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(module)}
    size = sum(held.values())
    return size <= LARGEST_COPY and all(2 * size < free for free in map(_free, devices))


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    for each in (*module.modules(), *_hidden(module)):
        own = (*each.parameters(recurse=False), *each.buffers(recurse=False), *tensors_in(attributes_of(each)))
        yield from (tensor for tensor in own if not is_lazy(tensor) and not tensor.is_meta)


def _hidden(module: nn.Module) -> Iterator[nn.Module]:
    """Modules in lists, that nobody has registered: a teacher, which is not to be trained."""
    for each in module.modules():
        for value in _values(each, registered=False):
            if isinstance(value, nn.Module):
                yield from value.modules()


def _free(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # where the system does not tell
        return float("inf")


def _copy(module: nn.Module) -> tuple[nn.Module | None, list[nn.Module]]:
    """A deep copy without the hooks of others, which may note calls elsewhere; data sets are shared.

    Also all modules that were copied, those in lists and objects as well.
    """
    held = [value for each in module.modules() for value in _values(each)]
    memo = {id(value): value for value in held if isinstance(value, SHARED)}
    try:
        other = copy.deepcopy(module, memo)
    except Exception:  # a lock, a file, a tensor with a graph, a generator
        return None, []
    theirs = {id(each) for each in module.modules()}
    made = (each for each in (*memo.values(), *other.modules()) if isinstance(each, nn.Module))
    for each in other.modules():
        for hooks in (forward_hooks_of(each), forward_pre_hooks_of(each)):
            for key in [key for key, hook in hooks.items() if not is_torchs(hook)]:
                del hooks[key]
    return other, [each for each in made if id(each) not in theirs]


def _values(module: nn.Module, *, registered: bool = True) -> Iterator[Any]:
    for value in vars(module).values() if registered else attributes_of(module):
        yield value
        if isinstance(value, (list, tuple)):
            yield from value
        elif isinstance(value, dict):
            yield from value.values()


@contextlib.contextmanager
def _alone(own: Sequence[nn.Module], original: nn.Module) -> Iterator[None]:
    """No module of the training runs, as by a function or a reference that a copy shares with what it was made of.

    Args:
        own: The modules of the copy.
        original: What it was made of.

    Raises:
        NotAskedError: One was about to.
    """
    modules, theirs = set(map(id, own)), set(map(id, original.modules()))
    tensors = {id(tensor) for each in own for tensor in (*each.parameters(), *each.buffers())}

    def refuse(module: nn.Module, args: Any) -> None:
        # What the forward itself has made, such as a part of a Sequential, holds tensors of the copy or none.
        given = () if id(module) in modules else (*module.parameters(), *module.buffers())
        if id(module) in theirs or any(id(tensor) not in tensors for tensor in given):
            raise NotAskedError(f"a copy of it runs the {type(module).__name__} of the training")

    handle = register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def without_output() -> Iterator[None]:
    """Without warnings and printed lines; the former straight in the filters, or the training would show them anew."""
    ignored: tuple[Any, ...] = ("ignore", None, Warning, None, 0)
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    filters.insert(0, ignored)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        if ignored in filters:
            filters.remove(ignored)
