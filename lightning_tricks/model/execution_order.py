"""The order in which a model runs its weighted layers, and the activation that follows each one, by data flow."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from lightning_tricks._compat.compiled import original_of
from lightning_tricks.activations import Activation, BoundActivation, activation_of, by_function
from lightning_tricks.model.batches import Forward, run_model
from lightning_tricks.model.data_flow import TensorMarks
from lightning_tricks.model.isolated import isolated
from lightning_tricks.model.layers import is_weighted

__all__ = ["ExecutionOrder", "execution_order", "functional_activations"]

Pending = frozenset[nn.Module]  # weighted layers whose output a tensor carries on, through anything but an activation
_NOTHING: Pending = frozenset()


@dataclass
class ExecutionOrder:
    """The weighted layers that ran, in the order of their first call, each with the first activation it met.

    Args:
        activations: Layer -> activation, or None where its output meets no activation before the next weighted layer.
        known: Whether this is the order of execution; False if only the order of registration could be had.
    """

    activations: dict[nn.Module, BoundActivation | None] = field(default_factory=dict)
    known: bool = True

    def ran(self, module: nn.Module) -> Pending:
        # The output projection of an attention layer is used without being called.
        last = module.out_proj if isinstance(module, nn.MultiheadAttention) else module
        for layer in (module, last):
            self.activations.setdefault(layer, None)
        return frozenset({last})

    def met(self, pending: Iterable[nn.Module], activation: BoundActivation) -> None:
        for layer in pending:
            if self.activations.get(layer) is None:
                self.activations[layer] = activation


def execution_order(model: nn.Module, batch: Any = None, forward: Forward | None = None) -> ExecutionOrder:
    """Runs the model on the batch without leaving a trace, or, without a batch, reads its graph by ``torch.fx``.

    Functional activations (``F.relu`` in a forward) are seen both ways. Where the graph cannot be read (a forward
    that branches on data), the order of registration is all that is left; a warning says so.
    """
    if batch is not None:
        return _by_running(model, batch, forward)
    model = original_of(model)
    if is_weighted(model):
        return _by_registration(model)
    try:
        return _by_graph(model)
    except Exception as error:  # a user's forward may raise anything on the stand-ins of a symbolic trace
        warnings.warn(
            f"the order in which {type(model).__name__} runs its layers cannot be read from its forward "
            f"({type(error).__name__}); the order of registration is taken, which does not see functional activations. "
            "Pass batch= to follow the order of execution",
            stacklevel=3,
        )
        return _by_registration(model)


def _by_running(model: nn.Module, batch: Any, forward: Forward | None) -> ExecutionOrder:
    order = ExecutionOrder()
    carried = TensorMarks[nn.Module]()
    inside: list[nn.Module] = []

    class Follow(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            pending = carried.of((args, kwargs))
            output = func(*args, **kwargs)
            if (activation := by_function.get(func)) is not None:
                order.met(inside[-1:] or pending, activation.bind(*args[1:], **kwargs))
                pending = _NOTHING
            carried.put(output, pending)
            return output

    def enter(module: nn.Module, args: Any) -> None:
        inside.append(module)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        inside.pop()
        carried.put(output, order.ran(module))

    handles = []
    try:
        for module in model.modules():
            if is_weighted(module):
                handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        with isolated(model, norms_as_set=True, layer_by_layer=True), Follow():
            run_model(model, batch, forward)
    finally:
        for handle in handles:
            handle.remove()
    return order


def _by_graph(model: nn.Module) -> ExecutionOrder:
    tracer = _Tracer()
    graph = tracer.trace(model)
    order = ExecutionOrder()
    carried: dict[fx.Node, Pending] = {}
    for node in graph.nodes:
        pending = _NOTHING.union(*(carried.get(source, _NOTHING) for source in node.all_input_nodes))
        activation: BoundActivation | None = None
        if node.op == "call_module":
            module = tracer.root.get_submodule(node.target)
            activation = activation_of(module)
            if is_weighted(module):
                pending = order.ran(module)
        elif (entry := _entry(node)) is not None:
            symbolic = any(isinstance(value, fx.Node) for value in (*node.args[1:], *node.kwargs.values()))
            activation = entry.bind() if symbolic else entry.bind(*node.args[1:], **node.kwargs)
        if activation is not None:
            order.met(pending, activation)
            pending = _NOTHING
        carried[node] = pending
    return order


def functional_activations(model: nn.Module) -> list[tuple[str, str]] | None:
    """(path of the module whose forward calls it, registry name) for each activation that is not a module.

    None where the graph cannot be read, so that nothing can be said.
    """
    try:
        graph = _Tracer().trace(model)
    except Exception:  # as in execution_order
        return None
    found = []
    for node in graph.nodes:
        if (entry := _entry(node)) is not None:
            stack = list(node.meta.get("nn_module_stack") or {"": None})
            found.append((stack[-1], entry.name))
    return found


def _entry(node: fx.Node) -> Activation | None:
    """The activation that a node of the graph calls as a function or a method."""
    if node.op == "call_function" and callable(node.target):
        return by_function.get(node.target)
    if node.op == "call_method" and callable(method := getattr(Tensor, str(node.target), None)):
        return by_function.get(method)
    return None


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = type(m).__module__.startswith("lightning_tricks.") and next(m.children(), None) is None
        return (
            ours or is_weighted(m) or activation_of(m) is not None or super().is_leaf_module(m, module_qualified_name)
        )


def _by_registration(model: nn.Module) -> ExecutionOrder:
    order = ExecutionOrder(known=False)
    pending = _NOTHING
    for module in model.modules():
        if is_weighted(module):
            pending = order.ran(module)
        elif (activation := activation_of(module)) is not None:
            order.met(pending, activation)
            pending = _NOTHING
    return order
