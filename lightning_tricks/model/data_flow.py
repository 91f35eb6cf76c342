"""Which layer's output goes straight into which other layer, and whether anything else uses it.

Surgery that merges two layers has to know that nothing stands between them and that no one else looks at what passes.
The order of registration tells neither. Two ways lead to it: a run on a batch, watched, and, without a batch, the graph
that ``torch.fx`` reads off the forward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from lightning_tricks._compat.compiled import original_of
from lightning_tricks.model.batches import Forward, run_model, tensors_in
from lightning_tricks.model.isolated import isolated

__all__ = ["DataFlow", "ModuleCall", "TensorMarks", "trace"]

_WEIGHTED_BESIDES = (nn.RNNBase, nn.MultiheadAttention)
# Asking a tensor for one of these is no use of its values.
_METHODS = ("size", "dim", "ndimension", "numel", "stride", "is_contiguous", "__len__")
_PROPERTIES = ("shape", "ndim", "dtype", "device", "layout", "is_cuda", "requires_grad", "is_sparse", "is_quantized")
_HARMLESS = {getattr(Tensor, name) for name in _METHODS} | {getattr(Tensor, name).__get__ for name in _PROPERTIES}
_DECISIONS = {
    getattr(Tensor, name) for name in ("__bool__", "__int__", "__float__", "__index__", "item", "tolist", "equal")
} | {torch.equal, torch.allclose}

Mark = TypeVar("Mark")


class TensorMarks(Generic[Mark]):
    """What tensors carry on from where they were made; a tensor that is gone is forgotten."""

    def __init__(self) -> None:
        self._marks: Any = WeakIdKeyDictionary()

    def of(self, tree: Any) -> frozenset[Mark]:
        """The marks of all tensors in it."""
        nothing: frozenset[Mark] = frozenset()
        return nothing.union(*(self._marks.get(tensor, nothing) for tensor in tensors_in(tree)))

    def put(self, tree: Any, marks: Iterable[Mark]) -> None:
        """Give all tensors in it these marks, in place of their own."""
        marks = frozenset(marks)
        for tensor in tensors_in(tree):
            self._marks[tensor] = marks


@dataclass(eq=False)
class ModuleCall:
    """One call of a watched module.

    Args:
        module: The module.
        source: The watched call whose output is this call's input, untouched; or None.
        uses: How often its output is used: by a watched module, by any other operation, or after the run.
        leads_on: Whether a later weighted layer depends on it.
        dims: Dimensions of its output, None where no batch was run.
    """

    module: nn.Module
    source: ModuleCall | None = None
    uses: int = 0
    leads_on: bool = False
    dims: int | None = None


@dataclass
class DataFlow:
    """The watched calls in the order of execution; the parameters and buffers met outside of the module they are in.

    Args:
        calls: The calls.
        borrowed: Ids of the tensors that were computed with.
        asked: Ids of those, and of the ones that were only asked for their shape, device or the like.
        decisions: Functions that turned tensors of the run into numbers of Python, after which it may go another way.
    """

    calls: list[ModuleCall] = field(default_factory=list)
    borrowed: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)
    decisions: list[str] = field(default_factory=list)

    def of(self, module: nn.Module) -> list[ModuleCall]:
        """The calls of one module."""
        return [call for call in self.calls if call.module is module]

    def behind(self, call: ModuleCall) -> list[ModuleCall]:
        """The watched calls that take this call's output."""
        return [other for other in self.calls if other.source is call]

    def is_borrowed(self, module: nn.Module) -> bool:
        """Whether something besides the module itself computes with one of its parameters."""
        return any(id(tensor) in self.borrowed for tensor in _own(module))

    def is_asked(self, module: nn.Module) -> bool:
        """Whether something besides the module itself looks at one of its parameters or buffers at all."""
        return any(id(tensor) in self.asked for tensor in _own(module))


def _own(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


Watch = Callable[[nn.Module], bool]


def trace(
    model: nn.Module, watch: Watch, weighted: Watch, batch: Any = None, forward: Forward | None = None, what: str = ""
) -> DataFlow:
    """The flow between the modules that ``watch`` accepts.

    Args:
        model: Any module; it is left as it was.
        watch: Which modules to look at. What they do inside is not looked at.
        weighted: Which of them count for ``leads_on``.
        batch: A batch to run, or None for the graph read by ``torch.fx``.
        forward: ``forward(model, batch)`` for batches that do not simply go in.
        what: The name of the surgery, for the error.

    Raises:
        ValueError: There is no batch, and the forward cannot be read without one.
    """
    model = original_of(model)
    if batch is None:
        batch = getattr(model, "example_input_array", None)  # a LightningModule's
    if batch is not None:
        return _by_running(model, watch, weighted, batch, forward)
    try:
        return _by_graph(model, watch, weighted)
    except Exception as error:  # a user's forward may raise anything on the stand-ins of a symbolic trace
        raise ValueError(
            f"{what}: the forward of {type(model).__name__} cannot be read without running it "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); pass batch="
        ) from error


def _is_sink(module: nn.Module, weighted: Watch) -> bool:
    return weighted(module) or isinstance(module, _WEIGHTED_BESIDES)


def _by_running(model: nn.Module, watch: Watch, weighted: Watch, batch: Any, forward: Forward | None) -> DataFlow:
    flow = DataFlow()
    made: Any = WeakIdKeyDictionary()  # tensor -> the call whose output it is
    carries = TensorMarks[ModuleCall]()  # the calls since the last weighted layer that a tensor depends on
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    inside: list[ModuleCall] = []

    class Watching(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if inside:
                return func(*args, **kwargs)
            met = list(tensors_in((args, kwargs)))
            flow.asked.update(own.intersection(map(id, met)))
            if func in _HARMLESS:
                return func(*args, **kwargs)
            flow.borrowed.update(own.intersection(map(id, met)))
            if func in _DECISIONS and any(id(tensor) not in own for tensor in met):
                flow.decisions.append(func.__name__)
            for tensor in met:
                if (call := made.get(tensor)) is not None:
                    call.uses += 1
            carried = carries.of((args, kwargs))
            output = func(*args, **kwargs)
            carries.put(output, carried)
            return output

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        sources = [made.get(tensor) for tensor in tensors_in((args, kwargs))]
        call = ModuleCall(module, sources[0] if len(sources) == 1 else None)
        inside.append(call)
        if len(inside) > 1:
            return
        for source in sources:
            if source is not None:
                source.uses += 1
        if _is_sink(module, weighted):
            for earlier in carries.of((args, kwargs)):
                earlier.leads_on = True

    def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        call = inside.pop()
        if inside:
            return
        flow.calls.append(call)
        earlier = frozenset() if _is_sink(module, weighted) else carries.of((args, kwargs))
        carries.put(output, earlier | {call})
        for tensor in tensors_in(output):
            made[tensor] = call  # a module that hands its input through (Identity) makes a new use of the same tensor
            call.dims = tensor.dim()

    with contextlib.ExitStack() as stack:
        for module in model.modules():
            if watch(module) or isinstance(module, _WEIGHTED_BESIDES):
                stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(leave, with_kwargs=True).remove)
        with isolated(model, norms_as_set=True, layer_by_layer=True), Watching():
            outputs = run_model(model, batch, forward)
    # What is still alive is an output of the model or was put aside by it: someone else may look at it.
    for call in list(made.values()):
        call.uses += 1
    del outputs  # until here they had to be alive
    return flow


def _by_graph(model: nn.Module, watch: Watch, weighted: Watch) -> DataFlow:
    watched = {module for module in model.modules() if watch(module)}  # to look at a module is recorded, too

    class Tracer(fx.Tracer):
        proxy_buffer_attributes = True  # what reads a buffer is in the graph, too

        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return m in watched or isinstance(m, _WEIGHTED_BESIDES) or super().is_leaf_module(m, module_qualified_name)

    tracer = Tracer()
    graph = tracer.trace(model)
    flow = DataFlow()
    calls: dict[fx.Node, ModuleCall] = {}
    carries: dict[fx.Node, frozenset[ModuleCall]] = {}
    for node in graph.nodes:
        carried: frozenset[ModuleCall] = frozenset().union(*(carries[source] for source in node.all_input_nodes))
        if node.op == "get_attr":
            read = id(_attribute(tracer.root, node.target))
            flow.asked.add(read)
            if not node.users or any(not _harmless(user) for user in node.users):
                flow.borrowed.add(read)
        elif node.op == "call_module":
            module = tracer.root.get_submodule(node.target)
            sink = _is_sink(module, weighted)
            if sink:
                for earlier in carried:
                    earlier.leads_on = True
                carried = frozenset()
            if module in watched:
                sources = node.all_input_nodes
                call = ModuleCall(module, calls.get(sources[0]) if len(sources) == 1 else None)
                call.uses = sum(not _harmless(user) for user in node.users)
                calls[node] = call
                flow.calls.append(call)
                carried = carried | {call}
        carries[node] = carried
    return flow


def _harmless(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in _METHODS
    return node.op == "call_function" and node.target is getattr and node.args[1] in _PROPERTIES


def _attribute(root: Any, path: str) -> Any:
    for key in path.split("."):
        root = getattr(root, key)
    return root
