"""An arm that tells recurrent and attention modules which axis the patterns of a batch lie along."""

from __future__ import annotations

from torch import nn

from lightning_tricks.experiments.arms.arm import of_model


def _modules(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(getattr(module, "batch_first", None), bool)]


def _turn(model: nn.Module) -> None:
    """The batch first in all of them, as loaders give it; where all say so already, the other way round."""
    modules = _modules(model)
    first = not all(module.batch_first for module in modules)
    for module in modules:
        vars(module)["batch_first"] = first


AXES = (
    of_model(
        "batch_first",
        "undo",
        "change_axis",
        "say which axis is the batch's: batch_first=True, or False where it is so",
        lambda model, setting: _turn(model),
        lambda training, setting: bool(_modules(training.module)),
        meant=True,
    ),
)
