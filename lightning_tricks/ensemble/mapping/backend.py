"""Members trained in one mapped call or one after the other: what works, and what is faster."""

from __future__ import annotations

import copy
import time
import types
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.weight_norm import WeightNorm
from torchmetrics import Metric

from lightning_tricks._compat.lightning_module import TRAINING_STATE
from lightning_tricks._compat.torch_modules import forward_pre_hooks_of
from lightning_tricks.ensemble.mapping.batched import BatchedLayers
from lightning_tricks.ensemble.mapping.functions import NotMappableError
from lightning_tricks.ensemble.mapping.proof import (
    Outcome,
    first_difference,
    in_double,
    looped_outcome,
    mapped_outcome,
)
from lightning_tricks.ensemble.mapping.stack import Stack
from lightning_tricks.ensemble.mapping.steps import looped_losses, mapped_losses
from lightning_tricks.ensemble.mapping.ways import first_line

CLEARLY = 1.5  # from how much slower on no further step is timed
ROUNDS, ENOUGH = 4, 0.05  # timed steps of each kind, and seconds: what takes long is not disturbed by much
SOME = 16  # members whose looped steps are timed
_PLAIN = (bool, int, float, str, type(None), tuple)
_EMPTY = (dict, OrderedDict, list)  # as the tables of hooks mostly are
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, type)


def why_not_mappable(members: list[Any], device: torch.device) -> str | None:
    """What can be seen without running a step; None if nothing speaks against a mapped step."""
    for path, module in members[0].named_modules():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            return f"{path} is a {type(module).__name__}, which torch.func.vmap cannot map"
        if any(isinstance(hook, WeightNorm) for hook in forward_pre_hooks_of(module).values()):
            return f"{path} computes its weight in a hook (nn.utils.weight_norm), outside of its parameters"
    if device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return "torch.func.vmap ignores autocast on the CPU"
    difference = _different_attribute(members)
    return None if difference is None else f"the members differ in {difference}"


def _different_attribute(members: list[Any]) -> str | None:
    """An attribute outside parameters and buffers that is not the same in all members."""
    first = dict(members[0].named_modules())
    for member in members[1:]:
        for path, module in member.named_modules():
            other = first.get(path)
            if type(module) is not type(other):
                return f"the type of {path or 'the member'}"
            if isinstance(module, Metric):  # is called outside of the mapped step, for each member by itself
                continue
            there = vars(other)
            for name, value in vars(module).items():
                own = there.get(name)
                if value is own or name in TRAINING_STATE or (type(value) in _EMPTY and not value and not own):
                    continue
                if not _same(value, own):
                    return f"attribute {path + '.' if path else ''}{name}"
    return None


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, _PLAIN) and isinstance(two, _PLAIN):
        return repr(one) == repr(two)
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return one.shape == two.shape and torch.equal(one, two)
    if isinstance(one, _FUNCTIONS) or isinstance(two, _FUNCTIONS):
        return getattr(one, "__code__", one) is getattr(two, "__code__", two)
    return _plain_parts(one) == _plain_parts(two)


def _plain_parts(value: Any) -> str:
    """The numbers and words in a list or dict, such as hyperparameters, at their places; of anything else nothing."""
    if isinstance(value, dict):  # the keys of hooks are numbers, other ones in each member
        named = ((key, _plain_parts(part)) for key, part in value.items() if isinstance(key, str))
        return "".join(f"{key}: {text}, " for key, text in named if text)
    if isinstance(value, list):
        return "".join(f"{_plain_parts(part)}, " for part in value)
    return repr(value) if isinstance(value, _PLAIN) else ""


class BackendBenchmark:
    """Training steps on copies of the members, forward and backward; nothing of them stays.

    Args:
        stack: The members that take part.
        active: Their numbers.
        batch: A training batch ``[K, B, ...]``.
        batch_idx: Its number.
        trainer: What the members see as their Trainer.
    """

    def __init__(self, stack: Stack, active: list[int], batch: Any, batch_idx: int, trainer: Any) -> None:
        self.active, self.batch, self.batch_idx, self.trainer = active, batch, batch_idx, trainer
        self.stack = Stack(self._copies(stack.members))
        self.batched: BatchedLayers | None = None
        self.device = next((value.device for value in stack.parameters.values()), torch.device("cpu"))
        self._looped: Outcome | None = None
        self._for_loop: tuple[Stack, list[int]] | None = None

    def _copies(self, members: list[Any]) -> list[Any]:
        copies = copy.deepcopy(members)  # without the Trainer, which a LightningModule does not copy
        for member in copies:
            member.trainer = self.trainer
        return copies

    def why_not_mapped(self) -> str | None:
        """Why no mapped step does what the looped one does; None where one does.

        Layers computed on the stack are taken if that is right, else all is mapped. In single precision, where a unit
        may be on either side of its kink by rounding, float64 decides about what differs.
        """
        given = (self.stack, self.active, self.batch, self.batch_idx)
        try:
            plain = mapped_outcome(*given, checked=True)
        except NotMappableError as error:
            return str(error)
        except Exception as error:  # whatever vmap raises: the loop will raise it again if it is the member's fault
            return first_line(error)
        self._looped = looped_outcome(*given)
        if self.batched_is_right():
            return None
        difference = first_difference(plain, self._looped, self.active)
        if difference is None or self._same_in_double(None):
            return None
        return f"a mapped step is not the same as a looped one in {difference}"

    def batched_is_right(self) -> bool:
        """Whether there are layers to compute on the stack, with the outcome of the looped step."""
        self.batched = None
        if self._looped is None:
            return False
        batched = BatchedLayers(self.stack)
        if not len(batched):
            return False
        try:
            found = mapped_outcome(self.stack, self.active, self.batch, self.batch_idx, batched=batched)
        except Exception:  # whatever it is that the layers met and do not know
            return False
        if first_difference(found, self._looped, self.active) is None or self._same_in_double(BatchedLayers):
            self.batched = batched
        return self.batched is not None

    def _same_in_double(self, layers: type[BatchedLayers] | None) -> bool:
        """Whether the mapped step is right in float64; False where everything is float64 already, or cannot be."""
        if all(value.dtype == torch.float64 for value in self.stack.parameters.values()):
            return False
        members, batch = in_double(self._copies(self.stack.members), self.batch)
        stack = Stack(members)
        try:
            looped = looped_outcome(stack, self.active, batch, self.batch_idx)
            batched = None if layers is None else layers(stack)
            mapped = mapped_outcome(stack, self.active, batch, self.batch_idx, batched=batched)
        except Exception:  # a forward with a dtype of its own
            return False
        return first_difference(mapped, looped, self.active) is None

    def seconds(self) -> tuple[float, float]:
        """Of a mapped and of a looped step: the fastest of some, in turns, after one each that does not count.

        One that takes far longer than the other also the first time is not asked again. Of many members the loop goes
        through some, and its time is taken as proportional.
        """
        mapped = min(self._timed(True) for _ in range(1 if self.batched is not None else 2))
        first = self._timed(False)
        if first > CLEARLY * mapped and len(self.active) > 2:  # its first member has paid what comes first
            return mapped, first
        looped, spent = float("inf"), 0.0
        for _ in range(ROUNDS):
            one, two = self._timed(False), self._timed(True)
            looped, mapped, spent = min(looped, one), min(mapped, two), spent + one + two
            if max(mapped, looped) > CLEARLY * min(mapped, looped) or spent > ENOUGH:
                break
        return mapped, looped

    def _timed(self, mapped: bool) -> float:
        if not mapped and self._for_loop is None:
            some = self.stack.members[:SOME]
            self._for_loop = (
                (self.stack if len(some) == len(self.active) else Stack(self._copies(some))),
                self.active[:SOME],
            )
        _wait(self.device)
        start = time.perf_counter()
        if mapped:
            self._mapped()
        else:
            self._loop()
        _wait(self.device)
        seconds = time.perf_counter() - start
        return seconds if mapped or self._for_loop is None else seconds * len(self.active) / len(self._for_loop[1])

    def _mapped(self) -> None:
        for parameter in self.stack.parameters.values():
            parameter.grad = None
        with self._fork():
            losses, _ = mapped_losses(self.stack, self.active, self.batch, self.batch_idx, batched=self.batched)
            if losses is not None:
                losses.sum().backward()

    def _loop(self) -> None:
        assert self._for_loop is not None
        stack, numbers = self._for_loop
        for parameter in stack.parameters.values():
            parameter.grad = None
        with self._fork():
            losses, _ = looped_losses(stack.members, numbers, self.batch, self.batch_idx)
            if losses is not None:
                losses.sum().backward()
                stack.collect_gradients()

    def _fork(self) -> Any:
        return torch.random.fork_rng([self.device] if self.device.type == "cuda" else [])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
