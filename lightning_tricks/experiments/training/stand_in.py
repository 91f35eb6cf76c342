"""What stands in for a Trainer while a copy of a LightningModule is trained without one."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from lightning_tricks._compat import lightning as compat
from lightning_tricks.experiments.training.steps import clip

_PLAIN = (bool, int, float, str, type(None), enum.Enum)
_DATA = ("datamodule", "train_dataloader", "val_dataloaders")
_SINGLE_PROCESS = {"global_rank": 0, "local_rank": 0, "node_rank": 0, "world_size": 1, "num_devices": 1, "num_nodes": 1}


class TrainerStandIn:
    """Answers what a LightningModule asks its Trainer; of the real one, where there is one, the plain numbers.

    Args:
        training: The ``Training`` whose module asks.
        real: The Trainer that it was attached to.
    """

    def __init__(self, training: Any, real: Any) -> None:
        begun = 0 if real is None else int(real.global_step)
        self._training, self._real, self._begun = training, real, begun
        self.training, self.validating, self.testing, self.predicting = True, False, False, False
        self.sanity_checking, self.is_global_zero, self.fast_dev_run, self.barebones = False, True, False, False
        self.logger = compat.silent_logger()
        self.loggers, self.callbacks = [self.logger], list[Any]()
        self.callback_metrics, self.logged_metrics, self.progress_bar_metrics = {}, {}, {}  # type: ignore[var-annotated]
        for name, value in _SINGLE_PROCESS.items():
            setattr(self, name, value)

    @property
    def global_step(self) -> int:
        return self._begun + self._training.steps

    @property
    def current_epoch(self) -> int:
        return 0 if self._real is None else int(self._real.current_epoch)

    @property
    def optimizers(self) -> list[Any]:
        return [] if self._training.optimizer is None else [self._training.optimizer]

    @property
    def estimated_stepping_batches(self) -> int:
        return self._training.planned_steps

    @property
    def max_steps(self) -> int:
        return self._training.planned_steps

    @property
    def num_training_batches(self) -> int:
        return self._training.planned_steps

    @property
    def max_epochs(self) -> int:
        return 1 if self._real is None else (self._real.max_epochs or 1)

    @property
    def lightning_module(self) -> Any:
        return self._training.module

    model = lightning_module

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.__dict__.get("_real"), name)  # an AttributeError names what was asked for
        if name in _DATA or isinstance(value, _PLAIN):
            return value
        raise AttributeError(f"{name} of a Trainer is not known to a copy that is trained without one")


def attach(training: Any, real: Any) -> None:
    """Have a copied LightningModule ask a stand-in; what it logs or prints goes nowhere."""
    stand_in: Any = TrainerStandIn(training, real)
    answers: dict[str, Callable[..., Any]] = {
        "log": _nothing,
        "log_dict": _nothing,
        "print": _nothing,
        "optimizers": lambda use_pl_optimizer=True: training.optimizer,
        "lr_schedulers": lambda: training.schedules[0].scheduler if training.schedules else None,
        "all_gather": lambda data, group=None, sync_grads=False: data,
        "clip_gradients": _clip,
    }
    training.module.trainer = stand_in
    for module in training.module.modules():
        if compat.is_lightning_module(module):
            vars(module).update(answers)


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _clip(optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    clip(parameters, gradient_clip_val or 0.0, gradient_clip_algorithm or "norm")
