"""An arm that leaves out what a forward calls last as a function: a softmax in front of a loss that wants logits."""

from __future__ import annotations

from lightning_tricks.experiments.arms.arm import Arm, Setting
from lightning_tricks.experiments.arms.functions import LeftOut
from lightning_tricks.experiments.training.training import Training


def _leave_out(training: Training, setting: Setting) -> None:
    called = setting.places.last_function
    assert called is not None
    training.around = lambda: LeftOut(called)


def _place(setting: Setting) -> str | None:
    called = setting.places.last_function
    return None if called is None else f"{called.name} in {called.line}"


FUNCTIONS = (
    Arm(
        "no_last_function",
        "undo",
        "remove_output_activation",
        "leave out the activation that the forward calls last",
        _leave_out,
        lambda training, setting: setting.places.last_activation is None and setting.places.last_function is not None,
        advice=lambda training, setting: {"output": f"without {_place(setting)}"},
        layer=_place,
    ),
)
