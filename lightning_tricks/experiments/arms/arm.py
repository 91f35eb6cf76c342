"""An arm: one change of a training, tried on a copy against the unchanged one, and made for good where it helps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn

from lightning_tricks.experiments.arms.batches import Batches
from lightning_tricks.experiments.arms.places import Places
from lightning_tricks.experiments.training.training import Training

Group = Literal["undo", "lower", "higher", "rebuild"]
SIMPLEST_FIRST: tuple[Group, ...] = ("undo", "lower", "higher", "rebuild")


@dataclass(frozen=True)
class Setting:
    """What arms know of the training that they change.

    Args:
        batches: What it is fed.
        places: Where its modules are called.
        ruined: Whether the weights are those of a failed training: what changes the structure draws them anew.
        leaps: Whether the loss of the unchanged training jumped; not known before it was run.
        gap: How much less of the way it has come in evaluation mode than in training.
        warms_up: Whether its learning rate still rises: how far the schedule would bring it is not known yet.
    """

    batches: Batches
    places: Places
    ruined: bool = False
    leaps: bool = False
    gap: float = 0.0
    warms_up: bool = False


@dataclass(frozen=True)
class Arm:
    """One change.

    Args:
        name: One word, as ``"no_clipping"``.
        group: ``"undo"`` takes away something that is there, ``"lower"`` and ``"higher"`` are learning rates,
            ``"rebuild"`` makes another network or other weights.
        action: Of the remedy.
        text: What to do, as advice to a person.
        change: Makes it in a training that is a copy.
        concerns: Whether there is anything to change.
        on_model: Makes it in a model in place; None where it concerns what is not in the model.
        advice: Values for what is not in the model, by name.
        batches: From the batches to those that it is fed instead.
        layer: Where, as far as that is known.
        swapped: Names of the activations that it replaces, ``{old}`` in the text.
        meant: Whether what it takes back is meant so, unless a warning says that it is not: then alone it is tried.
    """

    name: str
    group: Group
    action: str
    text: str
    change: Callable[[Training, Setting], None]
    concerns: Callable[[Training, Setting], bool] = lambda training, setting: True
    on_model: Callable[[nn.Module, Setting], Any] | None = None
    advice: Callable[[Training, Setting], dict[str, Any]] = lambda training, setting: {}
    batches: Callable[[Batches], Batches] | None = None
    layer: Callable[[Setting], str | None] = field(default=lambda setting: None)
    swapped: Callable[[Training, Setting], list[str]] | None = None
    meant: bool = False

    def worded(self, training: Training, setting: Setting) -> Arm:
        """The same, its text as it has to be written for this network."""
        if self.swapped is None:
            return self
        names = self.swapped(training, setting)
        return replace(self, text=self.text.format(old=repr(names[0] if len(names) == 1 else tuple(names))))

    @property
    def problem(self) -> str:
        """What is wrong where this change helps."""
        return problem_of(self.action)


_PROBLEMS = {
    "raise_clipping": "over_regularization",
    "no_weight_decay": "over_regularization",
    "lower_dropout": "over_regularization",
    "mend_schedule": "learning_rate_too_low",
    "zero_grad": "stale_gradient",
    "change_axis": "batch_mixing",
    "train_mode": "batch_norm_mismatch",
    "add_to_optimizer": "no_update",
    "unfreeze": "no_update",
    "raise_momentum": "batch_norm_mismatch",
    "average_statistics": "batch_norm_mismatch",
    "larger_batch": "batch_norm_mismatch",
    "insert_activation": "linearity",
    "shuffle": "unshuffled_data",
    "standardize_input": "unnormalized_input",
    "scale_targets": "target_mismatch",
    "clip_gradients": "exploding_gradient",
    "lower_learning_rate": "learning_rate_too_high",
    "raise_learning_rate": "learning_rate_too_low",
    "remove_output_activation": "output_mismatch",
    "reset_bias": "poor_initialization",
    "replace_normalization": "batch_norm_mismatch",
    "initialize": "poor_initialization",
    "swap_activation": "poor_initialization",
    "insert_batch_norm": "poor_initialization",
}


def problem_of(action: str) -> str:
    """What a remedy is for."""
    return _PROBLEMS[action]


def of_model(
    name: str,
    group: Group,
    action: str,
    text: str,
    on_model: Callable[[nn.Module, Setting], Any],
    concerns: Callable[[Training, Setting], bool] = lambda training, setting: True,
    *,
    renews: bool = True,
    layer: Callable[[Setting], str | None] = lambda setting: None,
    swapped: Callable[[Training, Setting], list[str]] | None = None,
    meant: bool = False,
) -> Arm:
    """An arm that changes the network; an optimiser for its new parameters follows."""

    def change(training: Training, setting: Setting) -> None:
        on_model(training.module, setting)
        if renews:
            training.renew()

    return Arm(name, group, action, text, change, concerns, on_model, layer=layer, swapped=swapped, meant=meant)
