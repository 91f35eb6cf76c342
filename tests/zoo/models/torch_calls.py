"""How a network of torch may be called: each in a small network."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from .entry import loss_of_call
from .small import Called, entry, hidden, mlp, on


def _functional_call(net: Any, x: Tensor) -> Tensor:
    given = {name: value * 1.0 for name, value in net.net.named_parameters()}
    return torch.func.functional_call(net.net, given, (x,))


def _vmap(net: Any, x: Tensor) -> Tensor:
    return torch.func.vmap(net.net)(x.unsqueeze(1))


def _jacobian(net: Any, x: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.jacrev(lambda one: net.net(one)))(x)


def _penalty(net: nn.Module, batch: Any) -> Tensor:
    x = batch[0].clone().requires_grad_()
    score = net(x)
    (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    return score.square().mean() + (slope.norm(dim=1) - 1).square().mean()


def _second_order(net: nn.Module, batch: Any) -> Tensor:
    weights = dict(net.named_parameters())
    inner = torch.func.functional_call(net, weights, batch).square().mean()
    slopes = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
    adapted = {n: w - 0.1 * g for (n, w), g in zip(weights.items(), slopes, strict=True)}
    return torch.func.functional_call(net, adapted, batch).square().mean()


class OtherMode(TorchFunctionMode):
    """A function mode of somebody else's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def _under_a_mode(net: nn.Module, batch: Any) -> Tensor:
    with OtherMode():
        return loss_of_call(net, batch)


def _threads(net: Any, x: Tensor) -> Tensor:
    found: dict[int, Tensor] = {}

    def work(index: int, part: Tensor) -> None:
        found[index] = net.net(part)

    workers = [threading.Thread(target=work, args=given) for given in enumerate(x.chunk(2))]
    for worker in workers:
        worker.start()
        worker.join()
    return torch.cat([found[0], found[1]])


class Marked(Tensor):
    """A tensor of a class of its own, as torchvision's images are."""


def _subclass(net: Any, x: Tensor) -> Tensor:
    return net.net(x.as_subclass(Marked))


def _complex(net: Any, x: Tensor) -> Tensor:
    hidden = net.one(torch.complex(x, x))
    return net.two(torch.tanh(hidden.abs()))


def _sparse(net: Any, x: Tensor) -> Tensor:
    graph = torch.eye(len(x)).roll(1, 0).to_sparse()
    return net.two(torch.relu(torch.sparse.mm(graph, net.one(x))))


def _nested(net: Any, x: Tensor) -> Tensor:
    ragged = torch.nested.nested_tensor([x[:3], x[3:]], layout=torch.jagged)
    return net.net(ragged).values()


class OwnFunction(torch.autograd.Function):
    """A derivative by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * (ctx.saved_tensors[0] > 0)


def _under_saved_hooks(net: nn.Module, batch: Any) -> Tensor:
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.clone(), lambda x: x):
        return loss_of_call(net, batch)


def _no_grad_inside(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        x = net.one(x)
    return net.two(torch.relu(x))


def _inference_inside(net: Any, x: Tensor) -> Tensor:
    with torch.inference_mode():
        x = net.one(x)
    return net.two(torch.relu(x.clone()))


ENTRIES = [
    entry("functional_call", on(_functional_call)),
    entry("vmap", on(_vmap), differs="transformed tensors"),
    entry("jacrev under vmap", on(_jacobian), differs="transformed tensors"),
    entry("gradient penalty", mlp, loss=_penalty),
    entry(
        "second order, as MAML",
        mlp,
        loss=_second_order,
        differs="the dispatcher cannot tell weights that depend on data",
    ),
    entry("checkpoint", on(lambda net, x: checkpoint(net.net, x, use_reentrant=False))),
    entry("checkpoint, reentrant", on(lambda net, x: checkpoint(net.net, x.requires_grad_(), use_reentrant=True))),
    entry("checkpoint_sequential", on(lambda net, x: checkpoint_sequential(net.net, 2, x, use_reentrant=False))),
    entry("function mode of somebody else", mlp, loss=_under_a_mode),
    entry("hooks on saved tensors", mlp, loss=_under_saved_hooks),
    entry("threads", on(_threads), differs="a function mode is one thread's own"),
    entry("tensor subclass", on(_subclass)),
    entry(
        "complex numbers",
        lambda: Called(_complex, one=nn.Linear(6, 8, dtype=torch.cfloat), two=nn.Linear(8, 3)),
        differs="complex values",
    ),
    entry("sparse product", hidden(_sparse)),
    entry("nested tensors", on(_nested), differs="nested values"),
    entry("derivative by hand", hidden(lambda net, x: net.two(OwnFunction.apply(net.one(x))))),
    entry("no_grad inside", hidden(_no_grad_inside)),
    entry("inference_mode inside", hidden(_inference_inside)),
]
