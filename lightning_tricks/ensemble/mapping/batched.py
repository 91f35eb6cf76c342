"""Layers whose product over all members is known, computed on the stack itself inside a mapped step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks._compat import functorch
from lightning_tricks._compat.functorch import is_mapped, on_all
from lightning_tricks._compat.torch_modules import backward_hooks_of, forward_hooks_of, forward_pre_hooks_of
from lightning_tricks.activations import activation_of
from lightning_tricks.ensemble.mapping.stack import Stack
from lightning_tricks.nn.dropout import AlphaDropout

Layer = Callable[[Tensor], Tensor]


class BatchedLayers:
    """Finds the layers of a stack's first member that it knows, and computes them for all members in a mapped step.

    There a linear layer is one batched product, without what mapping costs for every operation; whatever is not known
    (layers of other types, layers with hooks, calls with more than one argument) is mapped as before. Where torch lacks
    what computing on the stack needs, that is everything.

    Args:
        stack: The members.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._roots: list[tuple[nn.Module, Callable[..., Any]]] = []
        self._places = {id(value): name for name, value in _own(stack.members[0]).items()}
        if functorch.AVAILABLE:
            self._find(stack.members[0])

    def __len__(self) -> int:
        return len(self._roots)

    def _find(self, module: nn.Module) -> None:
        layers = self._layers(module)
        if layers is None:
            for child in module.children():
                self._find(child)
        elif module not in [root for root, _ in self._roots]:
            self._roots.append((module, _forward(module, layers)))

    def _layers(self, module: nn.Module) -> list[Layer] | None:
        """What computes a module on ``[K, ...]``, layer by layer; None where that is not known."""
        if "forward" in vars(module):
            return None
        kind: Any = type(module)
        if kind is nn.Sequential:
            parts = [self._layers(child) for child in module.children()]
            return None if not parts or None in parts else [layer for part in parts for layer in part or []]
        if _is_elementwise(module):
            return [functools.partial(kind.forward, module)]
        known = {
            nn.Linear: self._linear, nn.Flatten: self._flatten, nn.LayerNorm: self._layer_norm,
            nn.BatchNorm1d: self._batch_norm, nn.Embedding: self._embedding,
        }  # fmt: skip
        make = known.get(kind)
        layer = None if make is None else make(module)
        return None if layer is None else [layer]

    def _common(self, value: Tensor) -> Callable[[], Tensor]:
        name, stack = self._places[id(value)], self.stack
        return lambda: stack.parameters[name] if name in stack.parameters else stack.buffers[name]

    def _linear(self, module: Any) -> Layer:
        weight_of = self._common(module.weight)
        bias_of = None if module.bias is None else self._common(module.bias)
        transposed = self._places[id(module.weight)] in self.stack.transposed

        def layer(x: Tensor) -> Tensor:
            weight = weight_of()
            rows = x if x.dim() == 3 else x.reshape(x.shape[0], -1, x.shape[-1])
            if transposed:
                y = torch.bmm(rows, weight) if bias_of is None else torch.baddbmm(bias_of().unsqueeze(1), rows, weight)
            else:  # narrow outputs: twice as fast with the patterns as columns
                y = _Narrow.apply(rows, weight, None if bias_of is None else bias_of())
            return y if x.dim() == 3 else y.reshape(*x.shape[:-1], y.shape[-1])

        return layer

    def _flatten(self, module: Any) -> Layer:
        start = module.start_dim + 1 if module.start_dim >= 0 else module.start_dim
        end = module.end_dim + 1 if module.end_dim >= 0 else module.end_dim
        return lambda x: x.flatten(start, end)

    def _layer_norm(self, module: Any) -> Layer | None:
        shape = list(module.normalized_shape)
        if module.weight is None or module.bias is None:
            return None
        weight_of, bias_of = self._common(module.weight), self._common(module.bias)

        def layer(x: Tensor) -> Tensor:
            own = (x.shape[0], *[1] * (x.dim() - 1 - len(shape)), *shape)
            return torch.addcmul(bias_of().view(own), F.layer_norm(x, shape, eps=module.eps), weight_of().view(own))

        return layer

    def _batch_norm(self, module: Any) -> Layer | None:
        if module.momentum is None or not (module.affine and module.track_running_stats):
            return None
        of = {name: self._common(value) for name, value in _own(module).items()}

        def layer(x: Tensor) -> Tensor:
            if x.dim() not in (3, 4):
                return nn.BatchNorm1d.forward(module, x[0])  # raises, in torch's words
            if module.training:
                of["num_batches_tracked"]().add_(1)
            mean, var, weight, bias = (
                of[name]().view(-1) for name in ("running_mean", "running_var", "weight", "bias")
            )
            channels = x.transpose(0, 1)  # those of all members side by side
            flat = channels.reshape(x.shape[1], -1, *x.shape[3:])
            y = F.batch_norm(flat, mean, var, weight, bias, module.training, module.momentum, module.eps)
            return y.view(channels.shape).transpose(0, 1)

        return layer

    def _embedding(self, module: Any) -> Layer | None:
        if module.sparse or module.max_norm is not None or module.scale_grad_by_freq:
            return None
        name, weight_of = self._places[id(module.weight)], self._common(module.weight)

        def layer(x: Tensor) -> Tensor:
            weight = self.stack.transpose(name, weight_of())
            places = x.flatten(1).unsqueeze(2).expand(-1, -1, weight.shape[2])
            y = weight.gather(1, places).view(*x.shape, weight.shape[2])
            # The padding row has no gradient; torch's batching rule for it knows the first member's only.
            return (
                y if module.padding_idx is None else torch.where((x == module.padding_idx).unsqueeze(-1), y.detach(), y)
            )

        return layer

    @contextmanager
    def used(self) -> Iterator[None]:
        """A block, inside of a mapped call, in which the known layers of the first member compute on the stack."""
        if not self._roots:
            yield
            return
        try:
            for module, forward in self._roots:
                module.__dict__["forward"] = forward
            yield
        finally:
            for module, _ in self._roots:
                module.__dict__.pop("forward", None)


class _Narrow(torch.autograd.Function):
    """``x W^T + b`` for all members, as ``(W x^T)^T`` forward and with products of the usual layout backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        columns = torch.bmm(weight, x.mT)
        return (columns if bias is None else columns.add_(bias.unsqueeze(2))).mT

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            torch.bmm(gradient, weight) if of_x else None,
            torch.bmm(gradient.mT, x) if of_weight else None,
            gradient.sum(1) if of_bias else None,
        )


def _is_elementwise(module: nn.Module) -> bool:
    """Whether each number of the output depends on the same number of the input alone; Dropout draws for each."""
    kind = type(module)
    if kind in (nn.Identity, nn.Dropout, AlphaDropout):
        return True
    known = activation_of(module)
    if known is None or known.activation.module is not kind:
        return False
    # PReLU has weights; what RReLU draws would not compare with what it draws in a mapped step.
    return not list(module.parameters()) and kind is not nn.RReLU


def _own(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _forward(module: nn.Module, layers: list[Layer]) -> Callable[..., Any]:
    inside = [child for child in module.modules() if child is not module]

    def run(x: Tensor) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x

    def forward(*args: Any, **kwargs: Any) -> Any:
        hooked = any(
            forward_hooks_of(child) or forward_pre_hooks_of(child) or backward_hooks_of(child) for child in inside
        )
        if hooked or kwargs or len(args) != 1 or not is_mapped(args[0]):
            return type(module).forward(module, *args, **kwargs)
        return on_all(run, args[0])

    return forward
