"""Regressor: any network trained to predict values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor, nn

from lightning_tricks.modules.class_paths import metric_of
from lightning_tricks.modules.supervised import Network, SupervisedModule
from lightning_tricks.nn.standardize import Standardize

LOSSES = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.smooth_l1_loss}


class Regressor(SupervisedModule):
    """Trains any network to predict values, whose targets it brings to mean 0 and standard deviation 1.

    ``forward`` gives scaled values, of which the loss is; ``predict``, ``predict_step``, an ensemble's predictions and
    the metrics are in the units of the data. The statistics of inputs and targets are those of the training data, and
    are saved with the model. Batches are ``(x, y)`` with targets (N) or (N, T). Logged are ``train_loss``,
    ``val_loss``, ``val_mean_absolute_error``, ``val_r2_score``.

    Args:
        network: A module whose output is (N) or (N, T), or ``{"class_path": ..., "init_args": {...}}``, with which
            ``load_from_checkpoint(path)`` needs nothing else; a module it has to be given, ``network=...``.
        loss: "mse", "mae" or "huber" (of scaled values, at 1).
        scale_targets: Whether targets are scaled.
        metrics: Of torchmetrics, by name or class path.
        learning_rate, optimizer, optimizer_options: ``torch.optim.Adam`` unless another is named.
        scheduler, scheduler_options, scheduler_interval, scheduler_monitor: As of :class:`Classifier`.
        standardize: Whether inputs are standardised.
        num_samples: How many training samples the statistics are taken from; None for all.

    Raises:
        ValueError: An unknown loss, class or metric; in a step, outputs of another shape than the targets.

    >>> x, y = torch.randn(64, 4), torch.full((64,), 5000.0)
    >>> model = Regressor(torch.nn.Linear(4, 1))
    >>> model.fit_statistics([(x, y)])
    >>> bool((model.predict(x) > 4000).all())
    True
    """

    def __init__(
        self,
        network: Network,
        *,
        loss: Literal["mse", "mae", "huber"] = "mse",
        scale_targets: bool = True,
        metrics: Sequence[str] = ("MeanAbsoluteError", "R2Score"),
        learning_rate: float = 1e-3,
        optimizer: str = "torch.optim.Adam",
        optimizer_options: dict[str, Any] | None = None,
        scheduler: str | None = None,
        scheduler_options: dict[str, Any] | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        scheduler_monitor: str = "val_loss",
        standardize: bool = True,
        num_samples: int | None = 10_000,
    ) -> None:
        if loss not in LOSSES:
            raise ValueError(f"loss has to be one of {', '.join(map(repr, LOSSES))}, not {loss!r}")
        super().__init__(
            network, metrics, learning_rate, optimizer, optimizer_options, scheduler, scheduler_options,
            scheduler_interval, scheduler_monitor, standardize, num_samples,
        )  # fmt: skip
        self.loss_name, self.scales_targets = loss, scale_targets

    def metric(self, name: str) -> torchmetrics.Metric:
        made: torchmetrics.Metric = metric_of(name)
        return made

    @property
    def needs_statistics(self) -> bool:
        return super().needs_statistics or (self.scales_targets and isinstance(self.target, nn.Identity))

    def fit_target(self, targets: list[Tensor]) -> None:
        if self.scales_targets:
            columns = [_as_columns(y) for y in targets]
            self.target = Standardize.fit(columns).to(self.device)

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Of scaled values."""
        output, y = _alike(output, y)
        scaled = self.target(_as_columns(y)).view(y.shape) if isinstance(self.target, Standardize) else y
        return LOSSES[self.loss_name](output, scaled.to(output.dtype))

    def in_units(self, output: Tensor) -> Tensor:
        """Values in the units of the targets, of the output's shape."""
        if not isinstance(self.target, Standardize):
            return output
        return self.target.inverse(_as_columns(output)).view(output.shape)

    def measured(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        output, y = _alike(output, y)
        return self.in_units(output), y.to(torch.promote_types(output.dtype, torch.float32))


def _as_columns(y: Tensor) -> Tensor:
    return y.unsqueeze(1) if y.dim() == 1 else y


def _alike(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both as (N) or both as (N, T): (N, 1) is (N), and nothing is broadcast.

    Raises:
        ValueError: They have other shapes.
    """
    output, y = (value.squeeze(1) if value.dim() == 2 and value.shape[1] == 1 else value for value in (output, y))
    if output.shape != y.shape:
        raise ValueError(f"outputs of shape {list(output.shape)} for targets {list(y.shape)}")
    return output, y
