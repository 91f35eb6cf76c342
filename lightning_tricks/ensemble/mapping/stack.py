"""The weights of K members in one tensor per parameter, of which the members' own parameters are views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks._compat.torch_modules import buffers_of, parameters_of
from lightning_tricks.ensemble.mapping.logged_values import metrics_of

# Under so many outputs a batched product with the patterns as columns, ``[out, in] x [in, B]``, is the faster one.
NARROW = 12


def _narrow(layer: nn.Linear) -> bool:
    return layer.out_features < NARROW


class Stack:
    """K modules of one structure whose weights lie in common tensors ``[K, ...]``.

    Optimiser steps on the common tensors are steps of every member, and every member remains an ordinary module.
    Weights of linear layers lie there as ``[K, in, out]``, so that the batched product needs no copy, but for narrow
    outputs.

    Args:
        members: The modules; their weights are copied once and then live here.

    >>> members = [nn.Linear(2, 16) for _ in range(4)]
    >>> stack = Stack(members)
    >>> stack.parameters["weight"].shape
    torch.Size([4, 2, 16])
    >>> with torch.no_grad():
    ...     _ = stack.parameters["weight"].zero_()
    >>> members[2].weight.sum().item()
    0.0
    """

    def __init__(self, members: list[Any]) -> None:
        self.members = list(members)
        template = self.members[0]
        linear = {
            id(module.weight) for module in template.modules() if isinstance(module, nn.Linear) and not _narrow(module)
        }
        self.transposed = {
            name for name, value in template.named_parameters() if id(value) in linear and value.dim() == 2
        }
        self._own: list[dict[str, Tensor]] = [
            {**dict(member.named_parameters()), **dict(member.named_buffers())} for member in self.members
        ]
        self.parameters: dict[str, nn.Parameter] = {}
        self.buffers: dict[str, Tensor] = {}
        for name, parameter in template.named_parameters():
            self.parameters[name] = nn.Parameter(self._gather(name), requires_grad=parameter.requires_grad)
            self._attach(name, self.parameters[name].data)
        for name, _ in template.named_buffers():
            self.buffers[name] = self._gather(name)
            self._attach(name, self.buffers[name])
        self.devices = {value.device for value in (*self.parameters.values(), *self.buffers.values())}
        self._take_template()

    def _take_template(self) -> None:
        """What has to be known of the first member, whose training step is the one that is mapped."""
        template = self.members[0]
        self.metrics = metrics_of(template)
        self.names = {id(value): name for name, value in self._own[0].items()}
        places = {name: place for place, name in enumerate([*self.parameters, *self.buffers])}
        self._slots: list[tuple[tuple[dict[str, Any], str, int], Tensor]] = []
        for module in template.modules():  # a tied tensor has several places
            for owner in (parameters_of(module), buffers_of(module)):
                for name, value in owner.items():
                    if value is not None:
                        self._slots.append(((owner, name, places[self.names[id(value)]]), value))

    def _gather(self, name: str) -> Tensor:
        return torch.stack([self.transpose(name, own[name].data) for own in self._own])

    def _attach(self, name: str, common: Tensor) -> None:
        for own, row in zip(self._own, common.unbind(0), strict=True):
            own[name].data = self.transpose(name, row)

    def transpose(self, name: str, value: Tensor) -> Tensor:
        """Between the layout of a member and the layout here; its own inverse, also for a whole stack."""
        return value.mT if name in self.transposed else value

    def update_requires_grad(self) -> None:
        """Take over which parameters are frozen, as it is now in the first member."""
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(self._own[0][name].requires_grad)

    def views(self) -> list[Tensor]:
        """Parameters, then buffers, ``[K, ...]`` in the layout that the members' layers expect."""
        return [*(self.transpose(name, value) for name, value in self.parameters.items()), *self.buffers.values()]

    @contextmanager
    def substituted(self, values: Sequence[Tensor]) -> Iterator[None]:
        """A block in which the first member has other tensors, in the order of ``views``."""
        try:
            for (owner, name, place), _ in self._slots:
                owner[name] = values[place]
            yield
        finally:
            for (owner, name, _), own in self._slots:
                owner[name] = own

    def collect_gradients(self) -> None:
        """Move the gradients of the members' own parameters into those of the common ones."""
        for name, parameter in self.parameters.items():
            gradients = [own[name].grad for own in self._own]
            if all(gradient is None for gradient in gradients):
                continue
            rows = [
                self.transpose(name, torch.zeros_like(own[name]) if gradient is None else gradient)
                for own, gradient in zip(self._own, gradients, strict=True)
            ]
            if parameter.grad is None:
                parameter.grad = torch.stack(rows)
            elif parameter.grad.is_sparse:
                parameter.grad = parameter.grad + torch.stack(rows)
            else:
                for row, add in zip(parameter.grad.unbind(0), rows, strict=True):
                    row.add_(add)
            for own in self._own:
                own[name].grad = None

    def gradients(self) -> Iterator[Tensor]:
        for parameter in self.parameters.values():
            if parameter.grad is not None:
                yield parameter.grad

    def select(self, rows: list[int]) -> dict[nn.Parameter, nn.Parameter]:
        """Let the other members go: they get weights of their own, the stack shrinks. Old to new parameters."""
        self.release([row for row in range(len(self.members)) if row not in rows])
        self.members = [self.members[row] for row in rows]
        self._own = [self._own[row] for row in rows]
        replaced = {}
        for name, old in self.parameters.items():
            new = nn.Parameter(old.data[rows], requires_grad=old.requires_grad)
            if old.grad is not None:
                new.grad = old.grad[rows]
            self.parameters[name] = replaced[old] = new
            self._attach(name, new.data)
        for name, buffer in self.buffers.items():
            self.buffers[name] = buffer[rows]
            self._attach(name, self.buffers[name])
        self._take_template()
        return replaced

    def release(self, rows: list[int] | None = None) -> None:
        """Give members (all of them by default) tensors of their own, in the ordinary layout."""
        for row in range(len(self.members)) if rows is None else rows:
            for value in self._own[row].values():
                value.data = value.data.clone(memory_format=torch.contiguous_format)
