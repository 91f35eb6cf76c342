"""What Lightning does with a LightningModule: its own attributes, its hooks, and the cost of its calls in each step."""

from __future__ import annotations

from typing import Any

from lightning_tricks._compat import lightning as _lightning
from lightning_tricks._compat.torch_modules import TRAINER

# What Lightning sets on a module while it trains; names that a version does not have are never met.
RUNNING_HOOK = "_current_fx_name"
TRAINING_STATE = frozenset({"training", TRAINER, "_fabric", RUNNING_HOOK})


class LowOverheadModule(_lightning.LightningModule):
    """A LightningModule with a short way through what the Trainer calls in every step.

    A small step pays more for Lightning's detours than for its arithmetic. What happens is what happens in the base
    class.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == RUNNING_HOOK:  # set before and after every hook, some forty times a step
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None


def overrides(module: Any, hook: str) -> bool:
    """Whether a LightningModule or LightningDataModule has its own version of a hook."""
    module_type = _lightning.LightningModule
    base = module_type if isinstance(module, module_type) else _lightning.LightningDataModule
    return getattr(type(module), hook, None) is not getattr(base, hook, None)


def scriptable(module: Any) -> Any:
    """The same LightningModule, whose ``trainer`` is None without a Trainer: ``torch.jit`` asks for it, which raises.

    It is what Lightning's own ``to_torchscript`` does for a while; without this name it is as it was.
    """
    module.__dict__["_jit_is_scripting"] = True
    return module


def trainer_of(module: Any) -> Any:
    """The Trainer that a LightningModule is attached to, or None."""
    try:
        return module.trainer
    except (RuntimeError, AttributeError):
        return None


def is_running(trainer: Any) -> bool:
    """Whether a Trainer is in the middle of a fit."""
    state = trainer.state
    return getattr(state.status, "value", None) == "running" and getattr(state.fn, "value", None) == "fit"


def running_optimizers(model: Any) -> list[Any]:
    """Those of the fit in whose middle a LightningModule is; none for any other module."""
    trainer = trainer_of(model) if isinstance(model, _lightning.LightningModule) else None
    return list(trainer.optimizers) if trainer is not None and is_running(trainer) else []


def hyperparameters_are_given() -> bool:
    """Whether a command line makes this module, and gives the hyperparameters as they stand in its configuration."""
    try:
        from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
    except ImportError:  # then they are what the constructor was given, modules left out
        return False
    return _given_hyperparameters.get() is not None
