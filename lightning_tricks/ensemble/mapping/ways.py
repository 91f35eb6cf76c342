"""Mapped training steps along ways that were compared with the loop; a new way is compared where it is first taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lightning_tricks.ensemble.mapping.batched import BatchedLayers
from lightning_tricks.ensemble.mapping.functions import MappedFunctions, NotMappableError
from lightning_tricks.ensemble.mapping.logged_values import LoggedValues, StackedLoggedValues
from lightning_tricks.ensemble.mapping.stack import Stack
from lightning_tricks.ensemble.mapping.steps import mapped_losses
from lightning_tricks.model.isolated import random_streams, set_random_streams

Losses = tuple[Tensor | None, "dict[int, LoggedValues] | StackedLoggedValues"]
MOST = 8  # ways that are compared: each takes the time of a few steps


class ProvenWays:
    """What a comparison with the loop on one batch has shown holds for steps that call the same functions of torch.

    A step that calls others (a loss that is added later, a last batch that is treated by itself), or that raises, is
    undone, compared on copies with the looped one, and made again.

    Args:
        why_not: Why no mapped step does what the looped one does, of a batch and its number; None where one does. It
            was asked already about the first batch that comes.
        batched: The layers to be computed on the stack, as they are at the time.
    """

    def __init__(self, why_not: Callable[[Any, int], str | None], batched: Callable[[], BatchedLayers | None]) -> None:
        self.why_not, self.batched = why_not, batched
        self.ways: list[list[Any]] = []

    def losses(self, stack: Stack, active: list[int], batch: Any, batch_idx: int) -> Losses:
        """As ``mapped_losses``.

        Raises:
            NotMappableError: What cannot be mapped; buffers and torch's random numbers are as before.
        """
        before = _State(stack)
        try:
            found, way = self._step(stack, active, batch, batch_idx)
            if way in self.ways:
                return found
            if not self.ways:
                self.ways.append(way)
                return found
        except Exception as error:  # whatever mapping raises; the comparison may say it better
            if not self.ways:
                before.restore()
                raise NotMappableError(first_line(error)) from error
        before.restore()
        cause = "its steps differ in what they call" if len(self.ways) == MOST else self.why_not(batch, batch_idx)
        if cause is not None:
            raise NotMappableError(cause)
        try:
            found, way = self._step(stack, active, batch, batch_idx)
        except Exception as error:
            before.restore()
            raise NotMappableError(first_line(error)) from error
        self.ways.append(way)
        return found

    def _step(self, stack: Stack, active: list[int], batch: Any, batch_idx: int) -> tuple[Losses, list[Any]]:
        batched = self.batched()
        functions = MappedFunctions(stacked=batched is not None)
        found = mapped_losses(stack, active, batch, batch_idx, batched=batched, functions=functions)
        return found, functions.calls


class _State:
    """What a step changes before its loss is known: buffers, which are small beside what an optimiser reads; draws."""

    def __init__(self, stack: Stack) -> None:
        self.buffers = [(buffer, buffer.clone()) for buffer in stack.buffers.values()]
        self.devices = stack.devices
        self.streams = random_streams(self.devices)

    def restore(self) -> None:
        for buffer, old in self.buffers:
            buffer.copy_(old)
        set_random_streams(self.devices, self.streams)


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
