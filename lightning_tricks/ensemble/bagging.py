"""BaggingEnsemble: K networks in one fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from lightning_tricks._compat import lightning as _lightning
from lightning_tricks._compat.trees import tree_leaves
from lightning_tricks.ensemble import distributed
from lightning_tricks.ensemble.data.data_module import BootstrapDataModule, members_of_process
from lightning_tricks.ensemble.data.loader import rows
from lightning_tricks.ensemble.evaluation.prediction import Task
from lightning_tricks.ensemble.mapping.stack import Stack
from lightning_tricks.ensemble.members import make_members
from lightning_tricks.ensemble.training.chosen_backend import Backend, ChosenBackend
from lightning_tricks.ensemble.training.optimizers import (
    clip,
    move_to_stack,
    optimizers_and_schedulers,
    unfuse_sparse,
    why_separate,
)
from lightning_tricks.ensemble.training.separate import SeparateOptimizers
from lightning_tricks.ensemble.training.stopping import MemberStopping


class BaggingEnsemble(ChosenBackend):
    """Trains K differently initialised LightningModules, each on its own draws, in one fit; their mean predicts.

    Breiman 1996, "Bagging predictors": K training sets drawn with replacement, one network trained on each up to a
    criterion, predictions averaged. The batches ``[K, B, ...]`` come from :class:`BootstrapDataModule`. The members
    train unchanged: their own ``training_step``, ``configure_optimizers``, ``self.log`` and metrics; what they log
    arrives as the mean over the members. The loss is the members' sum, so that learning rates mean what they mean
    for one member.

    The callbacks ``InitializeWeights`` and ``PreciseBatchNorm`` work on each member with its own patterns.

    Args:
        make_member: Called K times, each time from a seed of its own; returns a new LightningModule.
        num_members: K.
        task: ``"classification"``: members return logits, probabilities are averaged; ``"regression"``: values are.
        backend: ``"vmap"`` computes all members in one mapped call, ``"loop"`` one after the other; ``"auto"`` times
            both at the first batch, on copies, and keeps the faster. A mapped step is taken only where it leaves the
            losses, gradients and buffers of the looped one, there and on every batch whose step calls other functions
            of torch; else the loop, with one warning that names the cause or the first tensor that differs, and the
            member.
        seed: Of the members' initial weights.
        monitor: What each member is stopped by: a name that it logs, or ``"out_of_bag"``, its mean loss on the
            patterns that it never sees. Its best weights are kept.
        patience: Epochs without a better value after which a member is finished and leaves the stack.
        mode: Whether lower (``"min"``) or higher is better.
        min_delta: How much better a value has to be.
        parallel: With several devices (``strategy="ddp"``): ``"data"`` splits each member's batch, ``"members"``
            gives each device its share of the members, gathered at the end.
        log_members: Log ``"{name}/member_{k}"`` beside the mean.

    Attributes:
        networks: The K members.
        backend: The backend as asked for; ``used_backend`` the one in use, None before the first batch.
        reason: Why this backend is used.

    >>> import torch
    >>> class Line(_lightning.LightningModule):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = torch.nn.Linear(2, 1)
    ...     def forward(self, x):
    ...         return self.layer(x)
    >>> ensemble = BaggingEnsemble(Line, num_members=5, task="regression")
    >>> ensemble.predict(torch.zeros(3, 2)).members.shape
    torch.Size([5, 3, 1])
    """

    def __init__(
        self,
        make_member: Callable[[], Any],
        num_members: int = 10,
        *,
        task: Task,
        backend: Backend = "auto",
        seed: int = 0,
        monitor: str | None = None,
        patience: int | None = None,
        mode: Literal["min", "max"] = "min",
        min_delta: float = 0.0,
        parallel: Literal["data", "members"] = "data",
        log_members: bool = False,
    ) -> None:
        for name, value, allowed in (
            ("task", task, ("classification", "regression")),
            ("backend", backend, ("auto", "vmap", "loop")),
            ("parallel", parallel, ("data", "members")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
        if patience is not None and monitor is None:
            raise ValueError('patience needs a monitor: a name that the members log, or "out_of_bag"')
        stopping = None if monitor is None else MemberStopping(patience, mode, min_delta)
        super().__init__(make_members(make_member, num_members, seed), task, monitor, stopping, parallel, log_members)
        self.backend = backend
        self.used_backend, self.reason = None, ""
        self._ways, self._resumed = None, None
        self._batch_size = 0
        self._fused: list[int] = []

    # --- before the training

    def setup(self, stage: str) -> None:
        for member in self.networks:
            setattr(member, "trainer", self.trainer)  # noqa: B010 (typed as a submodule)
        data = getattr(self.trainer, "datamodule", None)
        if stage != "fit":
            return
        if isinstance(data, BootstrapDataModule):
            if data.num_members != len(self.networks):
                raise ValueError(f"{len(self.networks)} members, but draws for num_members={data.num_members}")
            if data.parallel != self.parallel:
                raise ValueError(f"parallel={self.parallel!r} here, {data.parallel!r} in the BootstrapDataModule")
            self._data = data
        elif self.monitor == "out_of_bag":
            raise ValueError('monitor="out_of_bag" needs a BootstrapDataModule, which knows who saw which pattern')
        self._out_of_bag = self._stack = self._batched = self._separate = None
        self.automatic_optimization = True
        self.used_backend, self.active = None, list(range(len(self.networks)))  # a checkpoint is loaded after this
        self._ways, self._resumed = None, None
        if self.stopping is not None:
            self.stopping.load_state_dict({"best": {}, "waited": {}, "weights": {}})
        count = len(self.networks)
        if self.parallel == "members":
            rank, world = _lightning.rank_and_world(self.trainer)
            if count < world:
                raise ValueError(
                    f'{count} members cannot be shared by {world} processes: use fewer devices, or parallel="data"'
                )
            self.local_members = members_of_process(count, rank, world)
        else:
            self.local_members = range(count)
        self.active = [number for number in self.active if number in self.local_members]

    def configure_optimizers(self) -> Any:
        own: list[Any] = [self.networks[number] for number in self.active]
        configured = [member.configure_optimizers() for member in own]
        if not any(optimizers_and_schedulers(item)[0] for item in configured) and own[0].automatic_optimization:
            raise ValueError(f"configure_optimizers of {type(own[0]).__name__} returned no optimiser")
        cause = why_separate(own, configured)
        if cause is None:
            self._stack = Stack(own)
            self._fused = move_to_stack(optimizers_and_schedulers(configured[0])[0][0], self._stack)
            return configured[0]
        if self.trainer.world_size > 1:
            raise ValueError(f"members cannot be distributed over {self.trainer.world_size} processes: {cause}")
        self._use("loop", cause, warn=True)
        self.automatic_optimization = False
        self._separate = SeparateOptimizers(self, dict(zip(self.active, configured, strict=True)))
        return self._separate.for_trainer()

    def on_train_start(self) -> None:
        _lightning.without_gradient_exchange(self.trainer)
        self._member_logger.call_hook("on_train_start")

    # --- the training

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        size = self._size(batch)
        if len(self.active) < len(self.local_members):
            batch = rows(batch, [number - self.local_members.start for number in self.active])
        if self._separate is not None:
            accumulate = self.trainer.accumulate_grad_batches
            settings = {
                "accumulate": accumulate,
                "clip": self.trainer.gradient_clip_val,
                "algorithm": self.trainer.gradient_clip_algorithm,
            }
            ends = (batch_idx + 1) % accumulate == 0 or self.trainer.is_last_batch
            self._member_logger.replay(self._separate.step(self.active, batch, batch_idx, ends, settings), size, True)
            return None
        assert self._stack is not None
        if self.used_backend is None:
            self._choose(batch, batch_idx)
        losses, all_logged = self._losses(self._stack, batch, batch_idx)
        self._member_logger.replay(all_logged, size, True)
        self._batch_size = size
        return None if losses is None else losses.sum()

    def _size(self, batch: Any) -> int:
        """B of a batch ``[K, B, ...]``."""
        shapes = [tuple(leaf.shape) for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
        count = len(self.local_members)
        wrong = [shape for shape in shapes if len(shape) < 2 or shape[0] != count]
        if wrong or not shapes:
            raise ValueError(
                f"a training batch of {count} members has to hold tensors [{count}, B, ...], got "
                f"{wrong[0] if wrong else 'no tensor'}; give trainer.fit a BootstrapDataModule"
            )
        return shapes[0][1]

    def on_after_backward(self) -> None:
        if self._stack is not None and self.used_backend == "loop":
            self._stack.collect_gradients()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        unfuse_sparse(optimizer, self._fused)
        if self._stack is not None and self.parallel == "data" and self.trainer.world_size > 1:
            distributed.average_gradients(self._stack.gradients(), self._batch_size, self.device)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        if gradient_clip_val:
            values = [value for group in optimizer.param_groups for value in group["params"]]
            gradients = [value.grad for value in values if value.grad is not None]
            clip(gradients, float(gradient_clip_val), gradient_clip_algorithm)

    # --- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["bagging"] = {
            "active": list(self.active),
            **(self._resumed if self.used_backend is None and self._resumed else self._chosen()),
            "stopping": None if self.stopping is None else self.stopping.state_dict(),
        }

    def _chosen(self) -> dict[str, Any]:
        return {"used_backend": self.used_backend, "batched": self._batched is not None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint.get("bagging")
        if saved is None:
            raise ValueError("this checkpoint was not written by a BaggingEnsemble")
        self.active = list(saved["active"])
        self._resumed = {"used_backend": saved["used_backend"], "batched": bool(saved.get("batched"))}
        if self.stopping is not None and saved["stopping"] is not None:
            self.stopping.load_state_dict(saved["stopping"])


# The Trainer asks for the signature in every step, and working it out takes longer than a product of small matrices.
BaggingEnsemble.training_step.__signature__ = inspect.signature(BaggingEnsemble.training_step)  # type: ignore[attr-defined]
