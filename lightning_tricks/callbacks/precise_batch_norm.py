"""PreciseBatchNorm: population statistics before a network is used for anything but training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from lightning_tricks._compat.lightning import Callback, rank_zero_warn
from lightning_tricks.callbacks.modifying.batches import TrainingBatches, run_on_batch
from lightning_tricks.callbacks.modifying.members import Part, are_spread, merge, with_batches
from lightning_tricks.model.layers import is_batch_norm
from lightning_tricks.nn.batch_norm import BatchNorm, RunningStatistics
from lightning_tricks.surgery import Report, update_population_statistics
from lightning_tricks.surgery.batch_norm.batch_statistics import Estimator
from lightning_tricks.surgery.batch_norm.population import tracked_batch_norms


class PreciseBatchNorm(Callback):
    """Replaces the running statistics of batch norm by exact ones before validation, test and the end of the training.

    The statistics are those of the training data (Ioffe & Szegedy 2015, Algorithm 2), from the module's own loader and
    in its own batch format. Frozen layers (in eval mode while the module trains) stay as they are, several processes
    pool their data, and random numbers go on as if nothing had been read. Each member of an ensemble gets those of the
    patterns that it trains on. Wraps :func:`lightning_tricks.surgery.update_population_statistics`.

    Args:
        num_samples: How many training samples to read, over all processes; None for all.
        forward: ``forward(module, batch)`` runs the model on a batch; None: the module's own ``forward`` with the
            first element of the batch, or its ``training_step`` where it has none.
        estimator: ``"pooled"``, or ``"paper"`` for the algorithm to the letter.
        consistent: One pass per layer, so that each layer's statistics are those of what it meets in eval mode.
        layers: Globs over the names of the layers to update, in an ensemble of those of a member.

    Attributes:
        report: Which layers were updated last, and which were left and why; None before.

    Raises:
        ValueError: ``num_samples`` is under 1; at the start of a fit, ``Trainer(sync_batchnorm=True)`` has replaced
            ghost or renormalised batch norms by ``nn.SyncBatchNorm``, or an ensemble has
            its members spread over processes.

    >>> PreciseBatchNorm(num_samples=2_000).num_samples
    2000
    """

    def __init__(
        self,
        num_samples: int | None = 10_000,
        *,
        forward: Callable[[Any, Any], Any] | None = None,
        estimator: Estimator = "pooled",
        consistent: bool = False,
        layers: str | list[str] = "*",
    ) -> None:
        super().__init__()
        if num_samples is not None and num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, or None for all, got {num_samples}")
        self.num_samples = num_samples
        self.forward = forward
        self.estimator = estimator
        self.consistent = consistent
        self.layers = layers
        self.report: Report | None = None
        self._updated_at = -1
        self._ours: list[str] = []
        self._norms: dict[str, BatchNorm] = {}
        self._followed: list[str] | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._ours = [name for name, module in pl_module.named_modules() if isinstance(module, RunningStatistics)]

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._updated_at = -1
        self._followed = None
        modules = dict(pl_module.named_modules())
        lost = [name for name in self._ours if isinstance(modules.get(name), nn.SyncBatchNorm)]
        if lost:
            raise ValueError(
                f"Trainer(sync_batchnorm=True) has replaced {', '.join(lost)} by plain nn.SyncBatchNorm, as it does "
                "with all that derives from torch's batch norm; leave it off, and give these layers synchronize=True"
            )

        if are_spread(pl_module) and trainer.world_size > 1:
            raise ValueError(
                'PreciseBatchNorm pools the data of all processes, and with parallel="members" each has other members; '
                'use parallel="data"'
            )

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.on_train_epoch_start(trainer, pl_module)  # which an epoch that is taken up amid does not call

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._norms = {name: module for name, module in pl_module.named_modules() if is_batch_norm(module)}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Which layers train: at validation all are in eval mode, and a frozen one looks like any other."""
        self._followed = [name for name, module in self._norms.items() if module.training]

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """The members of an ensemble that stops them got their best weights back after ``on_train_end``."""
        if getattr(pl_module, "stopping", None) is not None and hasattr(pl_module, "member_batches"):
            self._updated_at = -1
            self._update(trainer, pl_module)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._update(trainer, pl_module)

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        self._update(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._update(trainer, pl_module)

    def _update(self, trainer: Any, pl_module: Any) -> None:
        """Once for the weights as they are now."""
        step = trainer.global_step
        if step == self._updated_at:
            return
        batches = TrainingBatches.of(trainer)
        if batches is None:
            rank_zero_warn("PreciseBatchNorm has no training data here: the statistics stay as they are")
            return
        self._updated_at = step
        self.report = Report()
        for part in with_batches(pl_module, batches):
            own = Report()
            with trainer.precision_plugin.forward_context():
                update_population_statistics(
                    part.network,
                    part.data,
                    self.forward or run_on_batch,
                    num_samples=self.num_samples,
                    layers=self._layers(part),
                    estimator=self.estimator,
                    consistent=self.consistent,
                    report=own,
                )
            merge(self.report, own, part)

    def _layers(self, part: Part) -> list[str]:
        asked_for = tracked_batch_norms(part.network, self.layers)
        return [name for name in asked_for if self._followed is None or part.prefix + name in self._followed]
