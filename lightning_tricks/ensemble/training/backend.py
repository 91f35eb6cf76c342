"""Members trained in one mapped call or one after the other: what works, and what is faster."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks._compat.lightning_module import TRAINING_STATE
from lightning_tricks.ensemble.training.batched import BatchedLayers
from lightning_tricks.ensemble.training.stack import Stack
from lightning_tricks.ensemble.training.steps import NotMappableError, looped_losses, mapped_losses

CLEARLY = 1.5  # from how much slower on no further step is timed
ROUNDS, ENOUGH = 4, 0.05  # timed steps of each kind, and seconds: what takes long is not disturbed by much
SOME = 16  # members whose looped steps are timed
_PLAIN = (bool, int, float, str, type(None), tuple)


def why_not_mappable(members: list[Any], device: torch.device) -> str | None:
    """What can be seen without running a step; None if nothing speaks against a mapped step."""
    for path, module in members[0].named_modules():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            return f"{path} is a {type(module).__name__}, which torch.func.vmap cannot map"
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
            for name, value in vars(module).items():
                if name in TRAINING_STATE:
                    continue
                there = vars(other).get(name)
                if isinstance(value, _PLAIN) and isinstance(there, _PLAIN):
                    same = value is there or repr(value) == repr(there)
                elif isinstance(value, Tensor) and isinstance(there, Tensor):
                    same = value.shape == there.shape and torch.equal(value, there)
                else:
                    same = True
                if not same:
                    return f"attribute {path + '.' if path else ''}{name}"
    return None


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
        self.originals = stack.members
        self.stack = stack.copied()  # without the Trainer, which a LightningModule does not copy
        self.stack.members[0].trainer = trainer
        self.looped: Stack | None = None
        self.batched: BatchedLayers | None = None
        self._expected: tuple[Tensor, ...] = ()
        self.device = next((value.device for value in stack.parameters.values()), torch.device("cpu"))

    def why_not_mapped(self) -> str | None:
        """What fails in a mapped step, or None."""
        try:
            self._expected = self._result(None, checked=True)
        except NotMappableError as error:
            return str(error)
        except Exception as error:  # whatever vmap raises: the loop will raise it again if it is the member's fault
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return lines[0]
        return None

    def batched_is_right(self) -> bool:
        """Whether there are layers to compute on the stack, with the losses and gradients of ``why_not_mapped``.

        Dropout is left out of the comparison: it draws as many numbers, but not in the same order.
        """
        batched = BatchedLayers(self.stack)
        if not len(batched):
            return False
        try:
            found = self._result(batched)
        except Exception:  # whatever it is that the layers met and do not know
            return False
        half = torch.is_autocast_enabled(self.device.type)
        for one, two in zip(self._expected, found, strict=True):
            eps = torch.finfo(torch.bfloat16 if half else one.dtype).eps
            scale = float(torch.linalg.vector_norm(one))
            if not float(torch.linalg.vector_norm(one - two)) <= 4 * eps**0.5 * scale:
                return False
        self.batched = batched
        return True

    def _result(self, batched: BatchedLayers | None, checked: bool = False) -> tuple[Tensor, Tensor]:
        """Losses, and all gradients as one vector, without dropout; buffers stay as they are."""
        before = [buffer.clone() for buffer in self.stack.buffers.values()]
        drops = [m for m in self.stack.members[0].modules() if type(m) is nn.Dropout and m.training]
        try:
            for layer in drops:
                layer.training = False
            losses = self._mapped(batched, checked)
        finally:
            for layer in drops:
                layer.training = True
        for buffer, old in zip(self.stack.buffers.values(), before, strict=True):
            buffer.copy_(old)
        gradients = [gradient.flatten() for gradient in self.stack.gradients()]
        zero = torch.zeros(1, device=self.device)
        return zero if losses is None else losses.detach(), torch.cat(gradients) if gradients else zero

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
        if not mapped and self.looped is None:
            members = copy.deepcopy(self.originals[:SOME])
            for member in members:
                member.trainer = self.trainer
            self.looped = Stack(members)
        _wait(self.device)
        start = time.perf_counter()
        if mapped:
            self._mapped(self.batched)
        else:
            self._loop()
        _wait(self.device)
        seconds = time.perf_counter() - start
        return seconds if mapped or self.looped is None else seconds * len(self.active) / len(self.looped.members)

    def _mapped(self, batched: BatchedLayers | None = None, checked: bool = False) -> Tensor | None:
        for parameter in self.stack.parameters.values():
            parameter.grad = None
        with self._fork():
            losses, _ = mapped_losses(
                self.stack, self.active, self.batch, self.batch_idx, batched=batched, checked=checked
            )
            if losses is not None:
                losses.sum().backward()
        return losses

    def _loop(self) -> None:
        assert self.looped is not None
        for parameter in self.looped.parameters.values():
            parameter.grad = None
        members = self.looped.members
        with self._fork():
            losses, _ = looped_losses(members, self.active[: len(members)], self.batch, self.batch_idx)
            if losses is not None:
                losses.sum().backward()
                self.looped.collect_gradients()

    def _fork(self) -> Any:
        return torch.random.fork_rng([self.device] if self.device.type == "cuda" else [])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
