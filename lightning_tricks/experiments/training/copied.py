"""Everything of a training in one deep copy, and whether the copy stands alone."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from lightning_tricks._compat.torch_modules import forward_hooks_of, forward_pre_hooks_of
from lightning_tricks.experiments.preflight.kept import SHARED, attributes_of, generators_of, is_torchs
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.model.batches import tensors_in
from lightning_tricks.model.isolated import same_stream

_WATCHERS = ("lightning_tricks", "lightning", "pytorch_lightning", "wandb", "torchinfo")  # their hooks change nothing


class Copied:
    """What was copied, and from which modules and parameters.

    Args:
        parts: Whatever belongs to the training; what is None stays None.
        left_out: Objects that the copies shall not have: a Trainer.
        hooks: Whether all hooks go along, because they are ours.

    Raises:
        NotAskedError: It cannot be copied.
    """

    def __init__(self, parts: tuple[Any, ...], left_out: Iterable[Any] = (), *, hooks: bool = False) -> None:
        modules = [each for part in parts if isinstance(part, nn.Module) for each in part.modules()]
        self._memo: dict[int, Any] = {id(each): None for each in left_out}
        for module in modules:
            values = [value for entry in attributes_of(module) for value in _with_parts(entry)]
            self._memo |= {id(value): value for value in values if isinstance(value, SHARED)}
        self._memo |= graphs_cut(modules)
        self._memo |= {id(each): same_stream(each) for each in generators_of(modules)}
        watched = [] if hooks else _watched(modules)
        try:
            self.parts = copy.deepcopy(parts, self._memo)
        except Exception as error:
            name = type(parts[0]).__name__
            raise NotAskedError(f"{name} cannot be copied ({type(error).__name__}: {error})") from error
        originals = [each for each in self._memo.get(id(self._memo), ()) if isinstance(each, (nn.Module, Tensor))]
        originals = [*originals, *modules, *(p for module in modules for p in module.parameters(recurse=False))]
        mine = {id(each) for each in self._memo.values()}
        originals = [each for each in originals if id(each) not in mine]
        self.modules = {id(each): each for each in originals if isinstance(each, nn.Module)}
        self.parameters = {id(each): each for each in originals if isinstance(each, nn.Parameter)}
        for module in watched:
            _drop_watchers(self._memo[id(module)])

    def also(self, optimizer: Any, schedulers: list[Any]) -> tuple[Any, list[Any]]:
        """An optimiser that turned out to hold the original's parameters, for those of the copy."""
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not held & set(self.parameters):
            return optimizer, schedulers
        copied: tuple[Any, list[Any]] = copy.deepcopy((optimizer, schedulers), self._memo)
        return copied

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """A block in which no module of the original may run.

        Raises:
            NotAskedError: One was about to.
        """

        def refuse(module: nn.Module, args: Any) -> None:
            if id(module) in self.modules:
                raise NotAskedError(f"a copy of it runs the {type(module).__name__} of the original")

        handle = register_module_forward_pre_hook(refuse)
        try:
            yield
        finally:
            handle.remove()

    def refuse_gradients_of(self, loss: Tensor) -> None:
        """Asks with one backward whether a copy's loss depends on the original's parameters.

        Raises:
            NotAskedError: It does.
        """
        trained = [p for p in self.parameters.values() if p.requires_grad]
        if not loss.requires_grad or not trained:
            return
        found = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
        if any(gradient is not None for gradient in found):
            raise NotAskedError("the loss of a copy is computed from parameters of the original, such as by a closure")


def graphs_cut(modules: Iterable[nn.Module]) -> dict[int, Any]:
    """For ``copy.deepcopy``, which refuses them: tensors with a graph that modules keep, without it."""
    values = [value for module in modules for entry in attributes_of(module) for value in _with_parts(entry)]
    return {id(x): x.detach().clone() for x in tensors_in(values) if x.grad_fn is not None}


def _with_parts(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, (list, tuple, set)):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()


def _watched(modules: list[nn.Module]) -> list[nn.Module]:
    """Modules with hooks that only watch; methods of copied modules go along.

    Raises:
        NotAskedError: A hook is a function that may change what the layer puts out, and may note it elsewhere.
    """
    found, own = [], set(map(id, modules))
    for module in modules:
        for hook in _hooks(module):
            if is_torchs(hook) or id(getattr(hook, "__self__", None)) in own:
                continue
            room = (getattr(hook, "__module__", None) or type(hook).__module__).partition(".")[0]
            if room not in _WATCHERS:
                name = getattr(hook, "__name__", type(hook).__name__)
                raise NotAskedError(
                    f"a hook ({name}) hangs on its {type(module).__name__}, which no copy can take along"
                )
            found.append(module)
    return found


def _hooks(module: nn.Module) -> list[Any]:
    return [*forward_hooks_of(module).values(), *forward_pre_hooks_of(module).values()]


def _drop_watchers(module: nn.Module) -> None:
    for hooks in (forward_hooks_of(module), forward_pre_hooks_of(module)):
        for key, hook in list(hooks.items()):
            room = (getattr(hook, "__module__", None) or type(hook).__module__).partition(".")[0]
            if room in _WATCHERS:
                del hooks[key]
