"""The first step whose loss is NaN or Inf is run again, on a copy, to name the line where that begins."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_tricks.model.isolated import keep_random_numbers
from lightning_tricks.probes.watch.error_guard import ErrorGuard
from lightning_tricks.probes.watch.first_nonfinite import first_nonfinite


class RepeatedStep:
    """Holds the batch of the running step, and repeats it once in a training.

    The training goes on as it would have: the copy has its own weights and buffers, nothing is logged, as it has no
    Trainer, and all random numbers are drawn again. What fails, as a step that asks its Trainer does, tells nothing.
    On the CPU and in one process only: elsewhere looking would have to wait for the device, or for the other processes.

    Attributes:
        origin: What was found: ``operation`` and ``line``.
    """

    def __init__(self) -> None:
        self.origin: dict[str, str] = {}
        self._given: tuple[Any, int] | None = None
        self._repeated = False

    def begin(self, batch: Any, batch_idx: int) -> None:
        """Before a batch."""
        self._given = None if self._repeated else (batch, batch_idx)

    def end(self) -> None:
        """After a batch: it is not to be kept while the next one comes."""
        self._given = None

    def is_due(self, trainer: Any, number: Tensor) -> bool:
        """Whether the step is to be repeated, as this number of it is NaN or Inf."""
        if self._given is None or number.device.type != "cpu":
            return False
        finite = math.isfinite(number.item()) if number.numel() == 1 else bool(number.detach().isfinite().all())
        return not finite and trainer.world_size == 1

    def repeat(self, module: torch.nn.Module) -> None:
        """Run the step again."""
        given, self._given, self._repeated = self._given, None, True
        devices = {parameter.device for parameter in module.parameters()}
        with ErrorGuard(lambda error: None), warnings.catch_warnings(), keep_random_numbers(devices):
            warnings.simplefilter("ignore")
            other: Any = copy.deepcopy(module)
            # A step may write into its batch, which the real backward pass still needs.
            arguments = copy.deepcopy(given or ())[: len(inspect.signature(other.training_step).parameters)]

            def run() -> Tensor:
                outputs = other.training_step(*arguments)
                loss: Tensor = outputs["loss"] if isinstance(outputs, Mapping) else outputs
                return loss

            place = first_nonfinite(run, other.parameters())
            self.origin = {} if place is None else dataclasses.asdict(place)
