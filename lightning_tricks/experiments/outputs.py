"""What a network hands to its loss: caught on the way, and replaced by anything of the same shape."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from lightning_tricks._compat.torch_modules import hear_calls
from lightning_tricks._compat.trees import tree_flatten, tree_unflatten
from lightning_tricks.activations import by_function
from lightning_tricks.experiments.patterns import NotAskedError

_MOST_NODES = 20_000
_SOFTMAXES = ("softmax", "log_softmax", "softmin")
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
        returned: What each returned, flattened, without its graph, and the structure.
        outputs: Those that lead to the loss without passing another call.
    """

    loss: Tensor
    modules: list[nn.Module]
    returned: list[tuple[list[Any], Any]]
    outputs: list[Output]

    @contextlib.contextmanager
    def replaced(self, values: Sequence[Tensor]) -> Iterator[None]:
        """A block in which the modules return these values in place of the outputs, and compute nothing."""
        given = {(output.call, output.leaf): value for output, value in zip(self.outputs, values, strict=True)}
        waiting: dict[int, deque[Any]] = {}
        for call, (module, (leaves, spec)) in enumerate(zip(self.modules, self.returned, strict=True)):
            own = [given.get((call, leaf), value) for leaf, value in enumerate(leaves)]
            waiting.setdefault(id(module), deque()).append(tree_unflatten(own, spec))
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
    for call, (_, leaves, _) in enumerate(listen.calls):
        for leaf, value in enumerate(leaves):
            if isinstance(value, Tensor) and value.grad_fn is not None:
                nodes.setdefault(value.grad_fn, []).append((call, leaf))
    if loss.grad_fn in nodes:
        raise NotAskedError("the loss is computed inside of the network")
    met = [place for node in _first_met(loss, set(nodes)) for place in nodes[node]]
    if not met:
        raise NotAskedError("no call of a module leads to the loss")
    outputs = [listen.functions.output(call, leaf, listen.calls[call][1][leaf]) for call, leaf in sorted(met)]
    returned = [([_detached(value) for value in leaves], spec) for _, leaves, spec in listen.calls]
    return Caught(loss, [each for each, *_ in listen.calls], returned, outputs)


class _Listen:
    """Notes the outermost calls of the modules of a model that have parameters."""

    def __init__(self, model: nn.Module) -> None:
        self.calls: list[tuple[nn.Module, list[Any], Any]] = []
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
                self.calls.append((module, *tree_flatten(output)))


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
        if of_tensor and (_name(func) in (*_SHAPES, *_SOFTMAXES) or _is_elementwise(func)):
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
    met: list[Any] = []
    seen: set[Any] = set()
    waiting = deque([loss.grad_fn])
    while waiting and len(seen) < _MOST_NODES:
        node = waiting.popleft()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in wanted:
            met.append(node)
        else:
            waiting.extend(each for each, _ in node.next_functions)
    return met


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
