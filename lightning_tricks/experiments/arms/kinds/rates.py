"""Arms of the learning rate: so many times lower or higher, climbed by 10 while it improves."""

from __future__ import annotations

from typing import Any

from lightning_tricks.experiments.arms.arm import Arm, Setting
from lightning_tricks.experiments.training.training import Training

STEP = 10.0
RATES = ("lower_learning_rate", "raise_learning_rate")
FARTHEST = 1e6


def rate(factor: float) -> Arm:
    """A learning rate that is multiplied with a factor, with its schedule."""
    lower = factor < 1.0
    name = f"{'lower' if lower else 'raise'}_learning_rate"
    by = 1.0 / factor if lower else factor
    text = f"{name.partition('_')[0]} the learning rate by a factor of {float(f'{by:.1g}'):g}"
    return Arm(
        name,
        "lower" if lower else "higher",
        name,
        text,
        lambda training, setting: training.scale_lr(factor),
        lambda training, setting: training.optimizer is not None,
        advice=_advice,
    )


def _advice(training: Training, setting: Setting) -> dict[str, Any]:
    """What the groups begin with; rounded, as one would write it."""
    rates = [float(f"{float(group.get('initial_lr', group['lr'])):.2g}") for group in training.optimizer.param_groups]
    return {"lr": rates[0] if len(set(rates)) == 1 else rates}


def _clip(training: Training, setting: Setting) -> None:
    training.clip = 1.0, "norm"


CLIP = Arm(
    "clip",
    "lower",
    "clip_gradients",
    "clip the gradient: Trainer(gradient_clip_val=1.0)",
    _clip,
    lambda training, setting: training.clip[0] == 0.0 and setting.leaps,
    advice=lambda training, setting: {"gradient_clip_val": 1.0},
)
