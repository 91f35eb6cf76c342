"""What a kind of healthy training is: how it is built, and the figure that proves it healthy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import lightning.pytorch as L


@dataclasses.dataclass
class Plan:
    """A training, ready to run.

    Args:
        module: What is trained.
        train, val: Loaders, or anything that a Trainer takes for one.
        score: The proving figure, asked after the training, in evaluation mode and without gradients.
        epochs: Passes over ``train``.
        look: The doctor's every_n_steps.
        options: Further arguments of the Trainer.
    """

    module: L.LightningModule
    train: Iterable[Any]
    score: Callable[[], float]
    val: Iterable[Any] | None = None
    epochs: int = 1
    look: int = 50
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class HealthyKind:
    """A kind of healthy training.

    Args:
        name: What is odd about it.
        build: From a seed to a plan; the random numbers are seeded before it is called.
        measure: What the proving figure is.
        at_least: The figure that a run has to reach to count as healthy.
    """

    name: str
    build: Callable[[int], Plan]
    measure: str
    at_least: float


KINDS: dict[str, HealthyKind] = {}


def healthy(name: str, measure: str, at_least: float) -> Callable[[Callable[[int], Plan]], Callable[[int], Plan]]:
    """Enter the function under it as a kind of healthy training."""

    def enter(build: Callable[[int], Plan]) -> Callable[[int], Plan]:
        if name in KINDS:
            raise ValueError(f"two kinds are called {name!r}")
        KINDS[name] = HealthyKind(name, build, measure, at_least)
        return build

    return enter
