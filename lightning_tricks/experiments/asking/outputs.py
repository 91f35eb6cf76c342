"""What a network hands to its loss: caught on the way, and replaced by anything of the same shape."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from lightning_tricks._compat.torch_modules import hear_calls
from lightning_tricks.activations import by_function
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.model.batches import tensors_in
from lightning_tricks.probes.watch.annotations import nodes_behind

SOFTMAXES = ("softmax", "log_softmax", "softmin")
_SHAPES = ("squeeze", "unsqueeze", "view", "reshape", "flatten", "unflatten", "transpose", "permute", "contiguous")
Rebuild = Callable[[Tensor], Tensor]


@dataclass
class Output:
    """One tensor that a call returned and that leads to the loss.

    Args:
        call, leaf: Which call of the step returned it, and which of its tensors it is.
        value: As it was, without its graph.
        raw: What went into the activation behind the last layer; the value itself where there is none.
        activation: That activation's name; empty where there is none.
        rebuild: From the raw value to the value.
    """

    call: int
    leaf: int
    value: Tensor
    raw: Tensor
    activation: str = ""
    rebuild: Rebuild = lambda raw: raw


@dataclass
class Caught:
    """The calls of a step that the loop around the model made, and those of their outputs that a loss was made of.

    Args:
        loss: Of the step, with its graph.
        modules: The module of each call.
        returned: What each returned, without its graph.
        outputs: Those that lead to the loss without passing another call.
    """

    loss: Tensor
    modules: list[nn.Module]
    returned: list[Any]
    outputs: list[Output]

    @contextlib.contextmanager
    def replaced(self, values: Sequence[Tensor]) -> Iterator[None]:
        """A block in which the modules return these values in place of the outputs, and compute nothing."""
        given = {(output.call, output.leaf): value for output, value in zip(self.outputs, values, strict=True)}
        waiting: dict[int, deque[Any]] = {}
        for call, (module, made) in enumerate(zip(self.modules, self.returned, strict=True)):
            own = [given.get((call, leaf), x) for leaf, x in enumerate(tensors_in(made))]
            waiting.setdefault(id(module), deque()).append(_filled(made, own))
        modules = {id(module): module for module in self.modules}
        for key, module in modules.items():
            vars(module)["forward"] = _next_of(waiting[key])
        try:
            yield
        finally:
            for module in modules.values():
                vars(module).pop("forward", None)


def _next_of(waiting: deque[Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        if not waiting:
            raise NotAskedError("the step does not make the same calls again")
        return waiting.popleft()

    return forward


def catch(module: nn.Module, step: Callable[[], Tensor]) -> Caught:
    """Run a step and note what its outermost calls of modules with parameters return.

    Raises:
        NotAskedError: No call leads to the loss, or the loss is computed inside of one.
    """
    listen = _Listen(module)
    with listen, listen.functions:
        loss = step()
    if not loss.requires_grad:
        raise NotAskedError("the loss has no gradient")
    nodes: dict[Any, list[tuple[int, int]]] = {}
    made = [list(tensors_in(output)) for _, output in listen.calls]
    for call, tensors in enumerate(made):
        for leaf, value in enumerate(tensors):
            if value.grad_fn is not None:
                nodes.setdefault(value.grad_fn, []).append((call, leaf))
    met = [place for node in _first_met(loss, set(nodes)) for place in nodes[node]]
    if not met:
        raise NotAskedError("no call of a module leads to the loss")
    if any(made[call][leaf].dim() == 0 for call, leaf in met):
        raise NotAskedError("the loss is computed inside of the network")
    outputs = [listen.functions.output(call, leaf, made[call][leaf]) for call, leaf in sorted(met)]
    returned = [replace(output, Tensor.detach) for _, output in listen.calls]
    return Caught(loss, [each for each, _ in listen.calls], returned, outputs)


def replace(tree: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """What a call returned with every tensor replaced, in the order of ``tensors_in``; what is of other kinds stays.

    >>> import torch
    >>> replace({"a": torch.ones(1), "b": [torch.ones(2), "no"]}, lambda x: x + 1)
    {'a': tensor([2.]), 'b': [tensor([2., 2.]), 'no']}
    """
    if isinstance(tree, Tensor):
        return function(tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return _with_fields(tree, {f.name: replace(getattr(tree, f.name), function) for f in dataclasses.fields(tree)})
    if isinstance(tree, dict):
        same: dict[Any, Any] = copy.copy(tree)  # an OrderedDict stays one
        for key, value in tree.items():
            same[key] = replace(value, function)
        return same
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(replace(value, function) for value in tree))
    return type(tree)(replace(value, function) for value in tree) if type(tree) in (list, tuple) else tree


def _filled(tree: Any, tensors: Sequence[Tensor]) -> Any:
    left = iter(tensors)
    return replace(tree, lambda _: next(left))


def _with_fields(record: Any, values: dict[str, Any]) -> Any:
    other = copy.copy(record)
    for name, value in values.items():
        try:
            setattr(other, name, value)
        except dataclasses.FrozenInstanceError:
            object.__setattr__(other, name, value)
    return other


class _Listen:
    """Notes the outermost calls of the modules of a model that have parameters."""

    def __init__(self, model: nn.Module) -> None:
        self.calls: list[tuple[nn.Module, Any]] = []
        self.functions = _Functions()
        self._wanted = {id(each) for each in model.modules() if next(each.parameters(), None) is not None}
        self._depth = 0
        self._ends: list[Callable[[], None]] = []

    def __enter__(self) -> _Listen:
        self._ends = [register_module_forward_pre_hook(self._enter).remove, hear_calls(self._leave)]
        return self

    def __exit__(self, *error: Any) -> None:
        for end in self._ends:
            end()

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._depth += id(module) in self._wanted

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if id(module) in self._wanted:
            self._depth -= 1
            if self._depth == 0:
                self.calls.append((module, output))


@dataclass
class _Functions(TorchFunctionMode):
    """Notes by which activation, and which changes of shape behind it, a tensor was made."""

    made: dict[int, tuple[Any, Any, Any, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        of_tensor = isinstance(made, Tensor) and args and isinstance(args[0], Tensor) and made is not args[0]
        if of_tensor and (_name(func) in (*_SHAPES, *SOFTMAXES) or _is_elementwise(func)):
            self.made[id(made)] = (func, args, kwargs, made)
        return made

    def output(self, call: int, leaf: int, value: Tensor) -> Output:
        """A tensor with the way back to what went into its last activation."""
        chain, current = [], value
        while (known := self.made.get(id(current))) is not None and known[3] is current:
            func, args, kwargs, _ = known
            chain.append((func, args, kwargs))
            current = args[0]
            if _name(func) not in _SHAPES:
                name = _name(func)
                return Output(call, leaf, value.detach(), current.detach(), name, _chained(chain[::-1]))
        return Output(call, leaf, value.detach(), value.detach())


def _chained(chain: list[tuple[Any, Any, Any]]) -> Rebuild:
    def rebuild(raw: Tensor) -> Tensor:
        for func, args, kwargs in chain:
            raw = func(raw, *args[1:], **kwargs)
        return raw

    return rebuild


def _name(func: Any) -> str:
    return getattr(func, "__name__", "").strip("_")


def _is_elementwise(func: Any) -> bool:
    entry = by_function.get(func)
    return entry is not None and entry.elementwise


def _first_met(loss: Tensor, wanted: set[Any]) -> list[Any]:
    """Those of the nodes that are met on the way back from a loss before any other of them."""
    return [node for node in nodes_behind(loss, past=wanted) if node in wanted]
