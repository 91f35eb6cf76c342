"""Arms that undo a setting of the training: clipping, decay, dropout, schedule, what is cleared, held or frozen."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lightning_tricks._compat.lightning_module import overrides
from lightning_tricks._compat.torch_modules import DropoutNd
from lightning_tricks.experiments.arms.arm import Arm, Setting, of_model
from lightning_tricks.experiments.training.training import Training
from lightning_tricks.model.layers import has_running_statistics, is_batch_norm

USUAL_MOMENTUM = 0.1  # torch's


def _clips(training: Training, setting: Setting) -> bool:
    own = training.uses_own_step and overrides(training.module, "configure_gradient_clipping")
    return training.clip[0] > 0 or own


def _no_clipping(training: Training, setting: Setting) -> None:
    training.clip = 0.0, "norm"
    if training.uses_own_step:
        vars(training.module)["configure_gradient_clipping"] = lambda *args, **kwargs: None


def _decays(training: Training, setting: Setting) -> bool:
    """Decoupled decay shrinks weights by lr * decay in a step, which is too slow to matter where that is small."""
    groups = [] if training.optimizer is None else training.optimizer.param_groups
    decoupled = "AdamW" in type(training.optimizer).__name__
    return any(g.get("weight_decay", 0.0) * (float(g["lr"]) * 1e3 if decoupled else 1e3) > 0.1 for g in groups)


def _no_decay(training: Training, setting: Setting) -> None:
    for group in training.optimizer.param_groups:
        group["weight_decay"] = 0.0


def _dropping(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """(module, attribute) of every share that is dropped."""
    found = [(m, "p") for m in model.modules() if isinstance(m, DropoutNd) and m.p > 0]
    recurrent = (nn.RNNBase, nn.MultiheadAttention)
    return found + [(m, "dropout") for m in model.modules() if isinstance(m, recurrent) and m.dropout > 0]


def _no_dropout(model: nn.Module, setting: Setting) -> None:
    for module, attribute in _dropping(model):
        setattr(module, attribute, 0.0)


def _no_schedule(training: Training, setting: Setting) -> None:
    training.schedules = []
    for group in training.optimizer.param_groups:
        group["lr"] = group.get("initial_lr", group["lr"])


def _clear(training: Training, setting: Setting) -> None:
    training.clears = True


def _keeps_gradients(training: Training, setting: Setting) -> bool:
    return training.uses_own_step and (
        overrides(training.module, "optimizer_zero_grad") or overrides(training.module, "optimizer_step")
    )


def _in_evaluation(training: Training, setting: Setting) -> bool:
    """Layers that compute something else in training, left as for use."""
    return any(not m.training and (has_running_statistics(m) or isinstance(m, DropoutNd)) for m in _modules(training))


def _modules(training: Training) -> list[nn.Module]:
    return list(training.module.modules())


def _train_mode(model: nn.Module, setting: Setting) -> None:
    for module in model.modules():
        module.training = True


def _held(training: Training) -> set[int]:
    groups = [] if training.optimizer is None else training.optimizer.param_groups
    return {id(p) for group in groups for p in group["params"]}


def _left_out(training: Training) -> list[nn.Parameter]:
    held = _held(training)
    return [p for p in training.module.parameters() if p.requires_grad and id(p) not in held]


def _all_parameters(training: Training, setting: Setting) -> None:
    left = _left_out(training)
    own = set(map(id, training.module.parameters()))
    if training.optimizer is None:
        training.optimizer = torch.optim.Adam(left, lr=1e-3)
        return
    group = training.optimizer.param_groups[0]
    # Those of another network, such as the one before a copy, give way to the ones that are trained.
    group["params"] = [p for p in group["params"] if id(p) in own] + left


def _frozen(training: Training, setting: Setting) -> bool:
    return any(not p.requires_grad and p.is_floating_point() for p in training.module.parameters())


def _unfreeze(model: nn.Module, setting: Setting) -> None:
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)


def _unfreeze_training(training: Training, setting: Setting) -> None:
    _unfreeze(training.module, setting)
    _all_parameters(training, setting)


def _slow_norms(training: Training, setting: Setting) -> bool:
    return any(map(_is_slow, training.module.modules()))


def _is_slow(module: nn.Module) -> bool:
    return is_batch_norm(module) and module.momentum is not None and module.momentum < USUAL_MOMENTUM


def _raise_momentum(model: nn.Module, setting: Setting) -> None:
    for module in model.modules():
        if is_batch_norm(module) and _is_slow(module):
            module.momentum = USUAL_MOMENTUM


def _value(name: str, value: Any) -> Any:
    return lambda training, setting: {name: value}


SETTINGS = (
    Arm(
        "no_clipping",
        "undo",
        "raise_clipping",
        "do not clip the gradient: Trainer(gradient_clip_val=None)",
        _no_clipping,
        _clips,
        advice=_value("gradient_clip_val", None),
    ),
    Arm(
        "no_decay",
        "undo",
        "no_weight_decay",
        "leave weight decay out: weight_decay=0",
        _no_decay,
        _decays,
        advice=_value("weight_decay", 0.0),
    ),
    of_model(
        "no_dropout",
        "undo",
        "lower_dropout",
        "leave dropout out: p=0",
        _no_dropout,
        lambda training, setting: bool(_dropping(training.module)),
        renews=False,
    ),
    Arm(
        "no_schedule",
        "undo",
        "mend_schedule",
        "leave the schedule of the learning rate out",
        _no_schedule,
        lambda training, setting: bool(training.schedules) and not setting.warms_up,
        advice=_value("lr_scheduler", None),
    ),
    Arm(
        "zero_grad",
        "undo",
        "zero_grad",
        "clear gradients before every backward: optimizer.zero_grad()",
        _clear,
        _keeps_gradients,
        advice=_value("zero_grad", True),
    ),
    of_model(
        "train_mode",
        "undo",
        "train_mode",
        "train in training mode: model.train()",
        _train_mode,
        _in_evaluation,
        renews=False,
    ),
    Arm(
        "all_parameters",
        "undo",
        "add_to_optimizer",
        "give the optimiser all parameters: model.parameters()",
        _all_parameters,
        lambda training, setting: bool(_left_out(training)),
        advice=_value("parameters", "model.parameters()"),
    ),
    Arm(
        "unfreeze",
        "undo",
        "unfreeze",
        "train all parameters: model.requires_grad_(True)",
        _unfreeze_training,
        _frozen,
        _unfreeze,
        meant=True,
    ),
    of_model(
        "raise_momentum",
        "undo",
        "raise_momentum",
        f"let batch norm follow the data: momentum={USUAL_MOMENTUM}",
        _raise_momentum,
        _slow_norms,
        renews=False,
    ),
)
