"""Mapped or looped: which of both an ensemble takes, from its first batch on and wherever a step takes another way."""

from __future__ import annotations

from typing import Any, Literal

from lightning_tricks._compat import lightning as _lightning
from lightning_tricks.ensemble import distributed
from lightning_tricks.ensemble.mapping import backend as backends
from lightning_tricks.ensemble.mapping.batched import BatchedLayers
from lightning_tricks.ensemble.mapping.functions import NotMappableError
from lightning_tricks.ensemble.mapping.stack import Stack
from lightning_tricks.ensemble.mapping.steps import looped_losses
from lightning_tricks.ensemble.mapping.ways import Losses, ProvenWays
from lightning_tricks.ensemble.training.epoch_hooks import EpochHooks
from lightning_tricks.model.processes import any_process

Backend = Literal["auto", "vmap", "loop"]


class ChosenBackend(EpochHooks):
    """What chooses between ``"vmap"`` and ``"loop"``, and says why in ``reason``."""

    backend: Backend
    used_backend: str | None
    reason: str
    _ways: ProvenWays | None
    _resumed: dict[str, Any] | None  # what a checkpoint says was used

    def _use(self, name: str, cause: str, *, warn: bool = False) -> None:
        self.used_backend, self.reason = name, cause
        if warn and self.backend != "loop":
            _lightning.rank_zero_warn(
                f"{type(self.networks[0]).__name__} is trained by the loop over members, one after the other: {cause}"
            )

    def _choose(self, batch: Any, batch_idx: int) -> None:
        """At the first batch, on copies: what works and what is faster; resumed, whether the same still works."""
        saved = self._resumed or {}
        wanted = saved.get("used_backend") or self.backend
        if wanted == "loop":
            return self._use("loop", "as before" if saved else "asked for")
        cause, benchmark = self._why_not_mapped(batch, batch_idx)
        if self.trainer.world_size > 1 and any_process(cause is not None, self.device):
            cause = cause or "another process cannot map its batch"
        if cause is not None:
            return self._use("loop", cause, warn=True)
        assert benchmark is not None
        if wanted == "vmap":
            self._use("vmap", "as before" if saved else "asked for")
        else:
            mapped, looped = distributed.summed_over_processes(self.trainer, benchmark.seconds())
            name = "vmap" if mapped <= looped else "loop"
            self._use(name, f"a step took {mapped * 1e3:.2f} ms mapped and {looped * 1e3:.2f} ms looped")
        if self.used_backend == "vmap":
            self._take_layers(benchmark.batched is not None and saved.get("batched", True))
            self._ways = ProvenWays(self._why_not_here, lambda: self._batched)
        return None

    def _why_not_mapped(self, batch: Any, batch_idx: int) -> tuple[str | None, backends.BackendBenchmark | None]:
        assert self._stack is not None
        cause = backends.why_not_mappable(self._stack.members, self.device)
        if cause is not None:
            return cause, None
        try:
            benchmark = backends.BackendBenchmark(self._stack, self.active, batch, batch_idx, self.trainer)
        except Exception as error:  # whatever the copying of a member's attributes raises
            return f"no copy can be made of it to try a mapped step ({error})", None
        return benchmark.why_not_mapped(), benchmark

    def _why_not_here(self, batch: Any, batch_idx: int) -> str | None:
        """In the middle of a training, where a step takes another way than before."""
        cause, benchmark = self._why_not_mapped(batch, batch_idx)
        if benchmark is not None and benchmark.batched is None:
            self._take_layers(False)
        return cause

    def _take_layers(self, known: bool) -> None:
        self._batched = BatchedLayers(self._stack) if known and self._stack is not None else None

    def _losses(self, stack: Stack, batch: Any, batch_idx: int) -> Losses:
        if self._ways is not None:
            try:
                return self._ways.losses(stack, self.active, batch, batch_idx)
            except NotMappableError as error:
                self._go_on_in_loop(str(error))
        return looped_losses(stack.members, self.active, batch, batch_idx)

    def _go_on_in_loop(self, cause: str) -> None:
        self._use("loop", f"{cause} (from step {self.trainer.global_step} on)", warn=True)
        self._ways = self._batched = None

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self._ways is not None and self._stack is not None:  # a hook or a callback may have changed single members
            cause = backends.why_not_mappable(self._stack.members, self.device)
            if cause is not None:
                self._go_on_in_loop(cause)

    def on_train_end(self) -> None:
        super().on_train_end()
        self._ways = None
