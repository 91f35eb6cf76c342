"""What an ensemble does between its training steps: evaluation, ends of epochs, early stopping of members."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from lightning_tricks._compat import lightning as _lightning
from lightning_tricks._compat.lightning_module import overrides
from lightning_tricks._compat.trees import tree_leaves
from lightning_tricks.ensemble import distributed
from lightning_tricks.ensemble.data.loader import MemberBatches, MemberRows, rows
from lightning_tricks.ensemble.evaluation.out_of_bag import member_losses
from lightning_tricks.ensemble.evaluation.prediction import Task
from lightning_tricks.ensemble.evaluation.predictor import EnsemblePredictor
from lightning_tricks.ensemble.mapping.batched import BatchedLayers
from lightning_tricks.ensemble.mapping.logged_values import LoggedValues, capture_logging
from lightning_tricks.ensemble.mapping.stack import Stack
from lightning_tricks.ensemble.members import FORWARDED_HOOKS
from lightning_tricks.ensemble.training.member_logger import MemberLogger
from lightning_tricks.ensemble.training.optimizers import select_rows
from lightning_tricks.ensemble.training.separate import SeparateOptimizers
from lightning_tricks.ensemble.training.stopping import MemberStopping
from lightning_tricks.model.processes import any_process


class EpochHooks(EnsemblePredictor):
    """K members that are evaluated, stopped one by one, and whose hooks are called.

    Args:
        members: The LightningModules.
        task: What their ``forward`` returns.
        monitor: What each member is stopped by.
        stopping: Decides who is finished; None: nobody.
        parallel: What several devices share.
        log_members: Log each member's values, too.
    """

    def __init__(
        self,
        members: list[Any],
        task: Task,
        monitor: str | None,
        stopping: MemberStopping | None,
        parallel: str,
        log_members: bool,
    ) -> None:
        super().__init__(members, task)
        if not overrides(self.networks[0], "validation_step"):
            self.validation_step = super().validation_step  # type: ignore[assignment, method-assign]  # no validation to ask for
        self.monitor, self.stopping, self.parallel = monitor, stopping, parallel
        self.active = list(range(len(members)))
        self._member_logger = MemberLogger(self, log_members)
        self._stack: Stack | None = None
        self._batched: BatchedLayers | None = None
        self._separate: SeparateOptimizers | None = None
        self.local_members = range(len(members))

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate("validation_step", batch, batch_idx, dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate("test_step", batch, batch_idx, dataloader_idx)

    def _evaluate(self, step: str, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        """All members on the same ordinary batch."""
        all_logged = {}
        for number, member in enumerate(self.networks):
            if overrides(member, step) and (self.trainer.world_size == 1 or number in self.local_members):
                all_logged[number] = LoggedValues()
                with capture_logging(member, all_logged[number]):
                    arguments = (batch, batch_idx, dataloader_idx) if dataloader_idx else (batch, batch_idx)
                    getattr(member, step)(*arguments)
        sizes = [leaf.shape[0] for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim()]
        self._member_logger.replay(all_logged, sizes[0] if sizes else 1, False)

    def member_parts(self, batch: Any) -> list[tuple[int, Any, Any]]:
        """(number, member, its part of a training batch) of the members that train here, for callbacks."""
        first = self.local_members.start
        return [(number, self.networks[number], rows(batch, number - first)) for number in self.active]

    def member_batches(self, batches: Iterable[Any]) -> list[tuple[int, Any, Iterable[Any]]]:
        """(number, member, batches of its training set in order, or else its part of ``batches``), for callbacks."""
        return [(number, self.networks[number], self._batches_of(number, batches)) for number in self.local_members]

    def _batches_of(self, number: int, batches: Iterable[Any]) -> Iterable[Any]:
        if self._data is None or self._data.sets is None:
            return MemberRows(batches, number - self.local_members.start)
        return MemberBatches(self._data.sets.indices[number], self._data, self.trainer)

    def _end_epoch(self, training: bool) -> None:
        values = self._member_logger.end_epoch(training)
        if self.trainer.sanity_checking:
            return
        if self._separate is not None and training:
            epoch = self.trainer.current_epoch + 1
            self._separate.step_schedulers(self.active, "epoch", epoch, self._member_logger.values)
        if training and self.monitor == "out_of_bag" and self._data is not None and self._data.sets is not None:
            values["out_of_bag"] = member_losses(self, self.active, self._data.train_dataset, self._data.sets)
            self.log("out_of_bag", sum(values["out_of_bag"].values()) / len(self.active), batch_size=1)
        if self.stopping is not None and self.monitor in values:
            self._stop_members(values[self.monitor])

    def _stop_members(self, values: dict[int, Any]) -> None:
        assert self.stopping is not None
        weights = {number: self.networks[number].state_dict() for number in self.active}
        finished = self.stopping.update({n: float(values[n]) for n in self.active if n in values}, weights)
        left = [number for number in self.active if number not in finished]
        if self.trainer.world_size > 1:  # processes step together, so that they also stop together
            self.trainer.should_stop = not any_process(bool(left), self.device) or self.trainer.should_stop
            return
        if not left:
            self.trainer.should_stop = True
            return
        if finished:
            if self._stack is not None:
                kept = [self.active.index(number) for number in left]
                select_rows(self.trainer.optimizers[0], self._stack.select(kept), kept)
                self._batched = BatchedLayers(self._stack) if self._batched is not None else None
            self.active = left
            for number in finished:
                self.stopping.restore(number, self.networks[number])

    def on_train_epoch_start(self) -> None:
        self._member_logger.call_hook("on_train_epoch_start")
        if self._stack is not None:
            self._stack.update_requires_grad()

    def on_train_epoch_end(self) -> None:
        self._member_logger.call_hook("on_train_epoch_end")
        self._end_epoch(training=True)

    def on_validation_epoch_end(self) -> None:
        self._member_logger.call_hook("on_validation_epoch_end")
        self._end_epoch(training=False)

    def on_test_epoch_end(self) -> None:
        self._member_logger.call_hook("on_test_epoch_end")
        self._end_epoch(training=False)

    def on_train_end(self) -> None:
        if self._stack is not None:
            self._stack.release()
            self._stack = self._batched = None
        if self.stopping is not None:
            known = self._member_logger.values
            if self.monitor not in (*known, "out_of_bag"):
                _lightning.rank_zero_warn(
                    f"no member logged {self.monitor!r}, only {', '.join(sorted(known)) or 'nothing'}: "
                    "none was stopped, and no best weights were kept"
                )
            for number in self.local_members:
                self.stopping.restore(number, self.networks[number])
        self._same_everywhere(gather=self.parallel == "members")
        self._member_logger.call_hook("on_train_end")

    def on_validation_start(self) -> None:
        self._same_everywhere(gather=False)
        self._member_logger.call_hook("on_validation_start")

    def _same_everywhere(self, gather: bool) -> None:
        """What several processes have to share beside gradients."""
        if self.trainer.world_size > 1 and gather:
            distributed.gather_members(list(self.networks), self.trainer.world_size)
        elif self.trainer.world_size > 1 and self.parallel == "data":
            distributed.broadcast_buffers(self.networks)


def _shared(hook: str) -> Callable[[Any], None]:
    def call(self: Any) -> None:
        self._member_logger.call_hook(hook)

    call.__name__ = hook
    return call


for _hook in FORWARDED_HOOKS:
    if _hook not in EpochHooks.__dict__:
        setattr(EpochHooks, _hook, _shared(_hook))
