"""Classifier: any network trained to tell classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor

from lightning_tricks.modules.class_paths import metric_of
from lightning_tricks.modules.supervised import Network, SupervisedModule

Kind = Literal["multiclass", "binary", "multilabel"]
_IGNORED = -100  # cross-entropy's


class Classifier(SupervisedModule):
    r"""Trains any network to classify, with the loss that fits the task.

    | task | the network puts out | targets | loss |
    |---|---|---|---|
    | multiclass | (N, C) logits, or (N, C, ...) | (N) or (N, ...) class numbers, or (N, C) shares | cross-entropy |
    | binary | (N) or (N, 1), one logit | (N), 0 or 1 | binary cross-entropy with logits |
    | multilabel | (N, L) logits | (N, L), 0 or 1 | binary cross-entropy with logits, mean over labels |

    The network ends with its last linear layer, without softmax or sigmoid. Its inputs are standardised by the
    statistics of the training data, which are saved with it; ``forward`` and ``predict`` take them raw. Batches are
    ``(x, y)``. Logged are ``train_loss``, ``val_loss``, ``val_accuracy`` ... Subclass it for anything else.

    Args:
        network: A module, or ``{"class_path": "torchvision.models.resnet18", "init_args": {"num_classes": 10}}``, with
            which ``load_from_checkpoint(path)`` needs nothing else; a module it has to be given, ``network=...``.
        num_classes: C, or the number of labels; of a binary task it is not asked for.
        task: "multiclass", "binary" or "multilabel".
        class_weights: C weights of the classes in the loss (binary: one, of class 1; multilabel: L, of the ones).
        label_smoothing: Of the cross-entropy, in [0, 1).
        metrics: Of torchmetrics, by name or class path.
        learning_rate, optimizer, optimizer_options: ``torch.optim.Adam`` unless another is named.
        scheduler, scheduler_options, scheduler_interval, scheduler_monitor: ``"CosineAnnealingLR"`` with ``{"T_max":
            "max_epochs"}``; "max_epochs" and "total_steps" stand for the Trainer's numbers.
        standardize: Whether inputs are standardised.
        num_samples: How many training samples the statistics are taken from; None for all.

    Raises:
        ValueError: An unknown task, class or metric, no ``num_classes`` where one is needed, or, in a step, outputs or
            targets of another shape than the task asks for.

    >>> model = Classifier(torch.nn.Linear(4, 3), num_classes=3, optimizer="SGD", learning_rate=0.1)
    >>> model(torch.zeros(2, 4)).shape, round(float(model.predict(torch.zeros(2, 4)).sum()), 3)
    (torch.Size([2, 3]), 2.0)
    """

    class_weights: Tensor | None

    def __init__(
        self,
        network: Network,
        num_classes: int | None = None,
        *,
        task: Kind = "multiclass",
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        metrics: Sequence[str] = ("Accuracy",),
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
        if task not in ("multiclass", "binary", "multilabel"):
            raise ValueError(f"task has to be 'multiclass', 'binary' or 'multilabel', not {task!r}")
        if task != "binary" and (num_classes is None or num_classes < 1 + (task == "multiclass")):
            raise ValueError(f"num_classes, the outputs of a {task} network, is needed, got {num_classes}")
        self.task, self.num_classes = task, 2 if task == "binary" else num_classes
        super().__init__(
            network, metrics, learning_rate, optimizer, optimizer_options, scheduler, scheduler_options,
            scheduler_interval, scheduler_monitor, standardize, num_samples,
        )  # fmt: skip
        self.label_smoothing = label_smoothing
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label_smoothing has to be in [0, 1), not {label_smoothing}")
        weights = None if class_weights is None else torch.tensor(list(class_weights), dtype=torch.float32)
        wanted = 1 if task == "binary" else num_classes
        if weights is not None and len(weights) != wanted:
            raise ValueError(f"class_weights has to hold {wanted} weights, not {len(weights)}")
        if weights is not None and not bool((weights >= 0).all()):
            raise ValueError(f"class_weights has to hold weights of 0 and more, not {weights.tolist()}")
        self.register_buffer("class_weights", weights, persistent=False)  # they are hyperparameters

    def metric(self, name: str) -> torchmetrics.Metric:
        options = {"task": self.task, "num_classes": self.num_classes, "num_labels": self.num_classes}
        made: torchmetrics.Metric = metric_of(name, **({} if "." in name else options))
        return made

    def configure_optimizers(self) -> Any:
        if self.task == "multilabel" and hasattr(self.trainer.lightning_module, "member_parts"):
            raise ValueError("an ensemble averages probabilities of classes that exclude each other: not multilabel")
        return super().configure_optimizers()

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of logits, of the kind that the task asks for."""
        output = self._logits(output)
        if self.task == "multiclass":
            y = self._classes(output, y)
            return F.cross_entropy(output, y, self.class_weights, label_smoothing=self.label_smoothing)
        y = y.reshape(output.shape) if y.numel() == output.numel() and self.task == "binary" else y
        if y.shape != output.shape:
            raise ValueError(f"{self.task} targets of shape {list(y.shape)} for outputs {list(output.shape)}")
        y = y.to(output.dtype)
        if self.label_smoothing:
            y = y * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(output, y, pos_weight=self.class_weights)

    def in_units(self, output: Tensor) -> Tensor:
        """Probabilities: (N, C), or of class 1 (N), or of each label (N, L)."""
        output = self._logits(output)
        return output.softmax(1) if self.task == "multiclass" else output.sigmoid()

    def measured(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        predicted = self.in_units(output)
        y = self._classes(output, y) if self.task == "multiclass" else y
        if y.is_floating_point():
            y = y.argmax(1) if self.task == "multiclass" else y.round()
        return predicted, (y.reshape(predicted.shape) if self.task == "binary" else y).long()

    def fit_target(self, targets: list[Tensor]) -> None:
        """Targets that the loss would take for something else are told before the training."""
        if type(self).loss is not Classifier.loss:
            return
        last = (self.num_classes or 2) - 1 if self.task == "multiclass" else 1
        for y in targets:
            if self.task == "multiclass" and y.is_floating_point():
                continue  # shares
            used = y[y != _IGNORED]
            if used.numel() and (float(used.min()) < 0 or float(used.max()) > last):
                raise ValueError(
                    f"{self.task} targets have to be 0 to {last}, and those of the training data go from "
                    f"{float(used.min()):g} to {float(used.max()):g}: number the classes from 0"
                )

    def _classes(self, output: Tensor, y: Tensor) -> Tensor:
        """Class numbers (N) or (N, ...), of (N, 1) too; or shares of the output's shape."""
        if y.is_floating_point():
            if y.shape != output.shape:
                raise ValueError(
                    f"multiclass targets are class numbers (integers: y.long()) or shares of shape "
                    f"{list(output.shape)}, not {y.dtype} of shape {list(y.shape)}"
                )
            return y
        return (y.squeeze(1) if y.dim() == output.dim() == 2 and y.shape[1] == 1 else y).long()

    def _logits(self, output: Tensor) -> Tensor:
        """The network's output, if it is of the shape that the task asks for."""
        if self.task == "binary":
            if output.dim() == 2 and output.shape[1] == 1:
                return output.squeeze(1)
            if output.dim() == 1:
                return output
            raise ValueError(f"a binary network puts out one logit, (N) or (N, 1), not {list(output.shape)}")
        if output.dim() < 2 or output.shape[1] != self.num_classes:
            raise ValueError(f"the network puts out {list(output.shape)}, and num_classes is {self.num_classes}")
        return output
