"""Arms for networks with batch norm whose evaluation lags behind, and for networks without a nonlinearity."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_tricks import surgery
from lightning_tricks.experiments.arms.arm import Arm, Setting, of_model
from lightning_tricks.experiments.arms.batches import Batches
from lightning_tricks.experiments.arms.kinds.network import asked
from lightning_tricks.experiments.training.training import Training
from lightning_tricks.model.layers import has_running_statistics, is_batch_norm

GAP = 0.1  # of the way, between the last steps of the training and the same batches in evaluation mode
FEW = 16  # patterns: as the rule of batch norm advises
TOGETHER = 4  # batches as one: as many patterns in k steps as the unchanged training sees in four times as many


def _averages(training: Training, setting: Setting) -> bool:
    return setting.gap > GAP and any(_forgets(module) for module in training.module.modules())


def _forgets(module: nn.Module) -> bool:
    return is_batch_norm(module) and has_running_statistics(module) and module.momentum is not None


def _average(model: nn.Module, setting: Setting) -> None:
    for module in model.modules():
        if is_batch_norm(module) and _forgets(module):
            module.momentum = None
            module.reset_running_stats()


def _small_batches(training: Training, setting: Setting) -> bool:
    return setting.batches.size < FEW and any(map(is_batch_norm, training.module.modules()))


def _together(batches: Batches) -> Batches:
    return batches.joined(TOGETHER)


def _missing_activation(training: Training, setting: Setting) -> bool:
    return bool(setting.places.joined)


def _insert_activation(model: nn.Module, setting: Setting) -> None:
    """nn.ReLU behind every layer that another one follows with nothing nonlinear between."""

    def policy(name: str, module: nn.Module) -> nn.Module | None:
        return nn.Sequential(module, nn.ReLU()) if name in setting.places.joined else None

    with asked():
        surgery.replace_modules(model, policy)


def _first_joined(setting: Setting) -> str | None:
    return next(iter(setting.places.joined), None)


def _batch_size(training: Training, setting: Setting) -> dict[str, Any]:
    """As large as four of the loader's."""
    return {"batch_size": setting.batches.size if setting.batches.size >= FEW else TOGETHER * setting.batches.size}


NORMALIZING = (
    of_model(
        "average_statistics",
        "undo",
        "average_statistics",
        "let batch norm average over all batches: momentum=None",
        _average,
        _averages,
        renews=False,
    ),
    Arm(
        "larger_batch",
        "undo",
        "larger_batch",
        f"use larger batches: {TOGETHER} times as many patterns",
        lambda training, setting: None,
        _small_batches,
        advice=_batch_size,
        batches=_together,
    ),
)
ACTIVATION = of_model(
    "insert_activation",
    "rebuild",
    "insert_activation",
    "put an activation between layers that follow each other, such as nn.ReLU()",
    _insert_activation,
    _missing_activation,
    layer=_first_joined,
)
