"""The optimiser and the schedules that a LightningModule configures, in any of the forms that Lightning takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks.experiments.preflight.patterns import NotAskedError


@dataclasses.dataclass
class Schedule:
    """A scheduler and when it steps.

    Args:
        scheduler: Of torch.
        interval: ``"step"`` or ``"epoch"``.
        frequency: Every how many of these.
    """

    scheduler: Any
    interval: str = "epoch"
    frequency: int = 1

    @property
    def waits_for_metric(self) -> bool:
        return type(self.scheduler).__name__ == "ReduceLROnPlateau"


def configured(answer: Any) -> tuple[Any, list[Schedule]]:
    """The one optimiser, or None, and its schedules.

    Raises:
        NotAskedError: There are several.
    """
    optimizers, schedulers = _parts(answer)
    if len(optimizers) > 1:
        raise NotAskedError(f"it has {len(optimizers)} optimisers")
    return (optimizers[0] if optimizers else None), [schedule_of(each) for each in schedulers if each is not None]


def adam_of(module: nn.Module) -> Any:
    """For what is trained, where nobody gave another; None where nothing is.

    Raises:
        NotAskedError: Copies of scripted modules have no parameters that an optimiser takes.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    try:
        return torch.optim.Adam(trained, lr=1e-3) if trained else None
    except ValueError as error:
        raise NotAskedError(f"the parameters of a copy cannot be trained: {error}") from error


def schedule_of(given: Any) -> Schedule:
    """Of a scheduler, of a dict around one, or of Lightning's record of one."""
    if hasattr(given, "step"):
        return Schedule(given)
    entries = given if isinstance(given, dict) else vars(given)
    names = ("scheduler", "interval", "frequency")
    return Schedule(**{name: entries[name] for name in names if name in entries})


def _parts(answer: Any) -> tuple[list[Any], list[Any]]:
    if answer is None:
        return [], []
    if isinstance(answer, dict):
        schedulers = answer.get("lr_scheduler")
        return [answer["optimizer"]], [schedulers] if schedulers is not None else []
    if isinstance(answer, Sequence):
        if len(answer) == 2 and isinstance(answer[0], (list, tuple)):
            schedulers = answer[1] if isinstance(answer[1], (list, tuple)) else [answer[1]]
            return list(answer[0]), list(schedulers)
        pairs = [_parts(each) for each in answer]
        return [o for pair in pairs for o in pair[0]], [s for pair in pairs for s in pair[1]]
    return [answer], []


def begin_with(optimizer: Any, parameters: Sequence[nn.Parameter], known: set[int]) -> None:
    """Have an optimiser forget its state, drop parameters that are gone and take up new ones in its first group.

    Args:
        parameters: Those that the model has now.
        known: The ids of those that it had; others that the optimiser holds are not the model's, and stay.
    """
    present = set(map(id, parameters))
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) in present or id(p) not in known]
    optimizer.param_groups[0]["params"] += [p for p in parameters if p.requires_grad and id(p) not in known]
    optimizer.state.clear()


def scale_rates(optimizer: Any, schedules: Sequence[Schedule], factor: float) -> None:
    """Multiply the learning rates of all groups, and what schedules take them from."""
    for group in optimizer.param_groups:
        for key in ("lr", "initial_lr", "max_lr", "min_lr"):
            if isinstance(group.get(key), (float, int, Tensor)):
                group[key] = group[key] * factor
    for schedule in schedules:
        rates = getattr(schedule.scheduler, "base_lrs", None)
        if isinstance(rates, list):
            schedule.scheduler.base_lrs = [rate * factor for rate in rates]


def highest_rate(optimizer: torch.optim.Optimizer | None) -> float:
    """The highest learning rate of all groups; 0 without an optimiser."""
    groups = [] if optimizer is None else optimizer.param_groups
    return max((float(group["lr"]) for group in groups if "lr" in group), default=0.0)
