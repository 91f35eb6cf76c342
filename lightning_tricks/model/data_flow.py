"""Which layer's output goes straight into which other layer, and whether anything else uses it.

Surgery that merges two layers has to know that nothing stands between them and that no one else looks at what passes.
The order of registration tells neither. Two ways lead to it: a run on a batch, watched, and, without a batch, the graph
that ``torch.fx`` reads off the forward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from lightning_tricks.model.isolated import Forward, quiet, run_once

__all__ = ["Call", "Flow", "trace"]

_WEIGHTED_BESIDES = (nn.RNNBase, nn.MultiheadAttention)
# Asking a tensor for one of these is no use of its values.
_METHODS = ("size", "dim", "ndimension", "numel", "stride", "is_contiguous", "__len__")
_PROPERTIES = ("shape", "ndim", "dtype", "device", "layout", "is_cuda", "requires_grad", "is_sparse", "is_quantized")
_HARMLESS = {getattr(Tensor, name) for name in _METHODS} | {getattr(Tensor, name).__get__ for name in _PROPERTIES}


@dataclass(eq=False)
class Call:
    """One call of a watched module.

    Args:
        module: The module.
        source: The watched call whose output is this call's input, untouched; or None.
        uses: How often its output is used: by a watched module, by any other operation, or after the run.
        leads_on: Whether a later weighted layer depends on it.
        dims: Dimensions of its output, None where no batch was run.
    """

    module: nn.Module
    source: Call | None = None
    uses: int = 0
    leads_on: bool = False
    dims: int | None = None


@dataclass
class Flow:
    """The watched calls in the order of execution, and the tensors that were used outside of the module they are in."""

    calls: list[Call] = field(default_factory=list)
    borrowed: set[int] = field(default_factory=set)

    def of(self, module: nn.Module) -> list[Call]:
        """The calls of one module."""
        return [call for call in self.calls if call.module is module]

    def behind(self, call: Call) -> list[Call]:
        """The watched calls that take this call's output."""
        return [other for other in self.calls if other.source is call]

    def is_borrowed(self, module: nn.Module) -> bool:
        """Whether something besides the module itself computes with one of its parameters."""
        return any(id(parameter) in self.borrowed for parameter in module.parameters(recurse=False))


Watch = Callable[[nn.Module], bool]


def trace(
    model: nn.Module, watch: Watch, weighted: Watch, batch: Any = None, forward: Forward | None = None, what: str = ""
) -> Flow:
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
    model = getattr(model, "_orig_mod", model)  # of a compiled model the original
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


def _by_running(model: nn.Module, watch: Watch, weighted: Watch, batch: Any, forward: Forward | None) -> Flow:
    flow = Flow()
    made: Any = WeakIdKeyDictionary()  # tensor -> the call whose output it is
    carries: Any = WeakIdKeyDictionary()  # tensor -> the calls since the last weighted layer that it depends on
    parameters = {id(p): p for p in model.parameters()}
    inside: list[Call] = []
    nothing: frozenset[Call] = frozenset()

    class Watching(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if inside or func in _HARMLESS:
                return func(*args, **kwargs)
            inputs = _tensors((args, kwargs))
            for tensor in inputs:
                if (call := made.get(tensor)) is not None:
                    call.uses += 1
                if id(tensor) in parameters:
                    flow.borrowed.add(id(tensor))
            carried = nothing.union(*(carries.get(tensor, nothing) for tensor in inputs))
            output = func(*args, **kwargs)
            for tensor in _tensors(output):
                carries[tensor] = carried
            return output

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        inputs = _tensors((args, kwargs))
        sources = [made.get(tensor) for tensor in inputs]
        call = Call(module, sources[0] if len(sources) == 1 else None)
        inside.append(call)
        if len(inside) > 1:
            return
        for source in sources:
            if source is not None:
                source.uses += 1
        if _is_sink(module, weighted):
            for earlier in nothing.union(*(carries.get(tensor, nothing) for tensor in inputs)):
                earlier.leads_on = True

    def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        call = inside.pop()
        if inside:
            return
        flow.calls.append(call)
        earlier = (
            nothing
            if _is_sink(module, weighted)
            else nothing.union(*(carries.get(tensor, nothing) for tensor in _tensors((args, kwargs))))
        )
        for tensor in _tensors(output):
            # A module that hands its input through (Identity, a dropout in eval) makes a new use of the same tensor.
            made[tensor], carries[tensor] = call, earlier | {call}
            call.dims = tensor.dim()

    with contextlib.ExitStack() as stack:
        for module in model.modules():
            if watch(module) or isinstance(module, _WEIGHTED_BESIDES):
                stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(leave, with_kwargs=True).remove)
        outputs: list[Any] = []
        run: Forward = forward or (lambda model, batch: model(batch[0] if isinstance(batch, (tuple, list)) else batch))
        with quiet(model), Watching():
            run_once(model, batch, lambda model, batch: outputs.append(run(model, batch)))
    # What is still alive is an output of the model or was put aside by it: someone else may look at it.
    for call in list(made.values()):
        call.uses += 1
    return flow


def _by_graph(model: nn.Module, watch: Watch, weighted: Watch) -> Flow:
    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return watch(m) or isinstance(m, _WEIGHTED_BESIDES) or super().is_leaf_module(m, module_qualified_name)

    tracer = Tracer()
    graph = tracer.trace(model)
    flow = Flow()
    calls: dict[fx.Node, Call] = {}
    carries: dict[fx.Node, frozenset[Call]] = {}
    for node in graph.nodes:
        carried: frozenset[Call] = frozenset().union(*(carries[source] for source in node.all_input_nodes))
        if node.op == "get_attr":
            flow.borrowed.add(id(_attribute(tracer.root, node.target)))
        elif node.op == "call_module":
            module = tracer.root.get_submodule(node.target)
            sink = _is_sink(module, weighted)
            if sink:
                for earlier in carried:
                    earlier.leads_on = True
                carried = frozenset()
            if watch(module):
                sources = node.all_input_nodes
                call = Call(module, calls.get(sources[0]) if len(sources) == 1 else None)
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


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
