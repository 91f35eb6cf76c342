"""What Classifier and Regressor share: any network, statistics of the data, any optimiser and schedule, evaluation."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_tricks._compat.lightning import LightningModule, rank_zero_warn
from lightning_tricks._compat.lightning_module import hyperparameters_are_given
from lightning_tricks._compat.trainer import training_loader
from lightning_tricks.model.batches import first_element, input_and_target
from lightning_tricks.model.isolated import keep_random_numbers, keep_training_flags
from lightning_tricks.modules.class_paths import class_of, network_of
from lightning_tricks.nn.standardize import Standardize

Network = nn.Module | Mapping[str, Any]
_BATCH = 256


class SupervisedModule(LightningModule):
    """Inputs and targets; the subclass says what the loss is, and what a prediction is.

    Args:
        network: A module, or ``{"class_path": ..., "init_args": {...}}``.
        metrics: Of torchmetrics, by name or class path.
        learning_rate: Of the optimiser; ``Tuner.lr_find`` finds it under this name.
        optimizer: Its class path; a name alone is one of ``torch.optim``.
        optimizer_options: Its further arguments.
        scheduler: Class path of a schedule; a name alone is one of ``torch.optim.lr_scheduler``.
        scheduler_options: Its arguments; the words "max_epochs" and "total_steps" stand for the Trainer's numbers.
        scheduler_interval: Whether it is stepped after each "epoch" or "step".
        scheduler_monitor: What ReduceLROnPlateau looks at.
        standardize: Whether the input is brought to mean 0 and standard deviation 1.
        num_samples: How many training samples its statistics are taken from; None for all.
    """

    standardize: nn.Module
    target: nn.Module

    def __init__(
        self,
        network: Network,
        metrics: Sequence[str],
        learning_rate: float,
        optimizer: str,
        optimizer_options: Mapping[str, Any] | None,
        scheduler: str | None,
        scheduler_options: Mapping[str, Any] | None,
        scheduler_interval: Literal["epoch", "step"],
        scheduler_monitor: str,
        standardize: bool,
        num_samples: int | None,
    ) -> None:
        super().__init__()
        if scheduler_interval not in ("epoch", "step"):
            raise ValueError(f"scheduler_interval has to be 'epoch' or 'step', not {scheduler_interval!r}")
        is_module = isinstance(network, nn.Module) and not hyperparameters_are_given()
        self.save_hyperparameters(ignore=["network"] if is_module else [])
        self.network = network_of(network)
        self.learning_rate = learning_rate
        self.optimizer, self.optimizer_options = class_of(optimizer, "torch.optim"), dict(optimizer_options or {})
        self.scheduler = None if scheduler is None else class_of(scheduler, "torch.optim.lr_scheduler")
        self.scheduler_options = dict(scheduler_options or {})
        self.scheduler_interval, self.scheduler_monitor = scheduler_interval, scheduler_monitor
        self.standardizes, self.num_samples = standardize, num_samples
        self.standardize = self.target = nn.Identity()  # until there is data
        self.val_metrics, self.test_metrics = (self._metrics(metrics, prefix) for prefix in ("val_", "test_"))

    # --- what a subclass says

    @abstractmethod
    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """The loss of what ``forward`` returned."""

    @abstractmethod
    def in_units(self, output: Tensor) -> Tensor:
        """What is predicted: probabilities, or values in the units of the data."""

    @abstractmethod
    def metric(self, name: str) -> torchmetrics.Metric:
        """A metric of torchmetrics for this task."""

    def measured(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """What the metrics are given."""
        return self.in_units(output), y

    # --- statistics of the data

    @property
    def needs_statistics(self) -> bool:
        """Whether a loader has to be read before the training."""
        return self.standardizes and isinstance(self.standardize, nn.Identity)

    def fit_statistics(self, data: Iterable[Any]) -> None:
        """Take mean and standard deviation of inputs (and targets) from batches ``(x, y)``; a fit does it by itself.

        Inputs that are no tensor, or integers but for uint8, such as tokens, stay as they are.
        """
        if isinstance(data, Dataset):
            raise TypeError(
                f"{type(data).__name__} gives single samples, not batches: wrap it, DataLoader(dataset, batch_size=64, "
                "shuffle=True)"
            )
        inputs, targets = [], []
        with keep_random_numbers():
            for x, y in self._first_samples(data):
                inputs.append(x)
                targets.append(y)
        if not inputs:
            raise ValueError("no batch to take the statistics from")
        if self.standardizes and _is_measured(inputs[0]):
            self.standardize = Standardize.fit(inputs).to(self.device)
        self.fit_target(targets)

    def fit_target(self, targets: list[Tensor]) -> None:
        """Statistics of the targets, where they are scaled."""

    def _first_samples(self, data: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        seen = 0
        for batch in data:
            x, y = input_and_target(batch)
            yield x, y
            seen += len(y)
            if self.num_samples is not None and seen >= self.num_samples:
                return

    def _fit_from_trainer(self) -> None:
        if not self.needs_statistics:
            return
        trainer: Any = self.trainer
        others = getattr(trainer.lightning_module, "networks", ()) if _is_ensemble(trainer.lightning_module) else ()
        known = next((other for other in others if type(other) is type(self) and not other.needs_statistics), None)
        if known is not None:
            self.standardizes = known.standardizes
            self.standardize, self.target = copy.deepcopy((known.standardize, known.target))
            return
        data = _joint_data(trainer) if others else training_loader(trainer)
        if data is None:
            rank_zero_warn(
                f"{type(self).__name__} finds no training data to take the statistics of its inputs from: they go in "
                "as they are; call fit_statistics(loader) first, or pass standardize=False"
            )
            self.standardizes = False
            return
        self.fit_statistics(data)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Statistics that a checkpoint brings have their place before they are loaded."""
        for name in ("standardize", "target"):
            mean = state_dict.get(f"{prefix}{name}.mean")
            if mean is not None:
                setattr(self, name, Standardize(len(mean)).to(self.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    # --- Lightning's part

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self._fit_from_trainer()

    def forward(self, x: Any) -> Tensor:
        """What the network says of raw inputs: logits, or scaled values."""
        if _is_measured(x) or (isinstance(x, Tensor) and isinstance(self.standardize, Standardize)):
            x = self.standardize(x).to(self.dtype)
        output: Tensor = self.network(x)
        return output

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = input_and_target(batch)
        loss = self.loss(self(x), y)
        self.log("train_loss", loss, batch_size=len(y))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, self.val_metrics, "val_loss")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, self.test_metrics, "test_loss")

    def _evaluate(self, batch: Any, metrics: Any, name: str) -> None:
        x, y = input_and_target(batch)
        output = self(x)
        self.log(name, self.loss(output, y), batch_size=len(y), prog_bar=True)
        metrics.update(*self.measured(output, y))
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(y), prog_bar=True)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = next(iter(batch.values())) if isinstance(batch, Mapping) else first_element(batch)
        return self.in_units(self(x))

    def predict(self, x: Any, *, batch_size: int = 1024) -> Tensor:
        """Probabilities, or values in the units of the data, in evaluation mode and without gradients.

        Args:
            x: A tensor or array (N, ...), on any device; or whatever else the network takes.
            batch_size: How many samples go through at once.
        """
        if isinstance(x, DataLoader):
            raise TypeError("predict takes inputs, not a loader: trainer.predict(model, loader), and torch.cat of that")
        x = torch.from_numpy(x) if isinstance(x, np.ndarray) else x
        chunks = x.split(batch_size) if isinstance(x, Tensor) else [x]
        with torch.no_grad(), keep_training_flags(self):
            self.eval()
            found = [self.in_units(self(self._on_device(chunk))) for chunk in chunks]
        joined = torch.cat(found)
        return joined.to(x.device) if isinstance(x, Tensor) else joined

    def _on_device(self, x: Any) -> Any:
        return x.to(self.device) if hasattr(x, "to") else x

    def configure_optimizers(self) -> Any:
        self._fit_from_trainer()  # an ensemble calls this of its members, and not their setup
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = self.optimizer(trained, **{"lr": self.learning_rate, **self.optimizer_options})
        if self.scheduler is None:
            return optimizer
        schedule = {
            "scheduler": self.scheduler(optimizer, **self._schedule_options()),
            "interval": self.scheduler_interval,
            "monitor": self.scheduler_monitor,
        }
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _schedule_options(self) -> dict[str, Any]:
        words = {"max_epochs", "total_steps"} & {v for v in self.scheduler_options.values() if isinstance(v, str)}
        known: dict[str, Any] = {}
        if words:
            known = {"max_epochs": self.trainer.max_epochs, "total_steps": int(self.trainer.estimated_stepping_batches)}
        return {
            name: known.get(value, value) if isinstance(value, str) else value
            for name, value in self.scheduler_options.items()
        }

    def _metrics(self, names: Sequence[str], prefix: str) -> torchmetrics.MetricCollection:
        return torchmetrics.MetricCollection({_snake(name): self.metric(name) for name in names}, prefix=prefix)


def _is_ensemble(module: Any) -> bool:
    return hasattr(module, "member_parts")


def _joint_data(trainer: Any) -> Any | None:
    """The patterns of all members of an ensemble: one scale for all of them."""
    dataset = getattr(trainer.datamodule, "train_dataset", None)
    return None if dataset is None else DataLoader(dataset, _BATCH, shuffle=True)


def _is_measured(x: Any) -> bool:
    """Whether an input is made of measured numbers: neither tokens nor a structure of several tensors."""
    return isinstance(x, Tensor) and (x.is_floating_point() or x.dtype == torch.uint8)


def _snake(name: str) -> str:
    """``MeanAbsoluteError`` as ``mean_absolute_error``, ``R2Score`` as ``r2_score``, ``AUROC`` as ``auroc``."""
    letters = name.rpartition(".")[2]
    if letters.isupper():
        return letters.lower()
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(letters))
