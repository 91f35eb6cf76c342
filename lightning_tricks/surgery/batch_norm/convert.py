"""Exchanging one kind of batch norm for another, and back."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from lightning_tricks._compat.torch_modules import buffers_of, parameters_of
from lightning_tricks.init.report import NoEffectWarning, Report
from lightning_tricks.model.arguments import check_module
from lightning_tricks.model.layers import Model, is_batch_norm, is_mean_only
from lightning_tricks.nn import batch_norm as ours
from lightning_tricks.nn.batch_norm import BatchNorm
from lightning_tricks.surgery.replace import hand_over, refuse_wrapped, replace_modules

__all__ = ["convert_batch_norm", "dimensions_of", "member", "refuse_zero_eps"]

_OURS = [getattr(ours, name) for name in ours.__all__ if name.endswith("d")]
_EXACT = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, *_OURS}
_STATE = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def convert_batch_norm(
    model: Model, cls: type, *, optimizer: Optimizer | None = None, report: Report | None = None, **kwargs: Any
) -> Model:
    """Replaces every batch norm by one of another kind, in place, and returns the model.

    Each layer becomes the class of its own dimensions: ``GhostBatchNorm2d`` asks for ``GhostBatchNorm1d`` where the
    model has an ``nn.BatchNorm1d``. Parameters are the same objects as before, so an optimiser goes on; statistics,
    ``eps``, ``momentum``, dtype, device, training flag and hooks are kept, and converting to ``nn.BatchNorm2d`` goes
    back. Subclasses of batch norm that this library does not know are left, since what they add would be lost.

    ``MeanOnlyBatchNorm`` has no scale: converting to it drops scale and variance, and converting back gives a scale
    that leaves the function in eval as it was.

    Args:
        model: The network. It may be replaced itself: use the return value.
        cls: The kind, as any of its classes: ``GhostBatchNorm2d``, ``BatchRenorm1d``, ``nn.BatchNorm2d``,
            ``nn.SyncBatchNorm``. A ``SyncBatchNorm`` does not tell its dimensions and becomes ``cls`` itself.
        optimizer: An optimiser to be told where parameters had to come or go.
        report: Collects what was replaced and what was left.
        **kwargs: Further arguments of the new layers, such as ``ghost_size=32``.

    Raises:
        TypeError: ``cls`` is no batch norm, or does not take these arguments.
        ValueError: An argument is out of range, or a layer is not initialised yet; the layer is named. Nothing is
            changed then.

    >>> from lightning_tricks.nn import GhostBatchNorm2d
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.BatchNorm1d(36))
    >>> [type(layer).__name__ for layer in convert_batch_norm(model, GhostBatchNorm2d, ghost_size=16)]
    ['Conv2d', 'GhostBatchNorm2d', 'Flatten', 'GhostBatchNorm1d']
    """
    check_module(model)
    report = Report() if report is None else report
    refuse_wrapped(model, "convert_batch_norm")
    member(cls, None)
    left: list[tuple[str, str]] = []

    def policy(name: str, module: nn.Module) -> nn.Module | None:
        if not is_batch_norm(module):
            return None
        if is_lazy(module.running_mean):
            raise ValueError(f"convert_batch_norm: layer {name!r} is not initialised yet; run the model once before")
        if type(module) not in _EXACT and type(module) is not cls:
            left.append((name, f"{type(module).__name__} may do more than batch norm"))
            return None
        new_cls = member(cls, dimensions_of(type(module)))
        if type(module) is new_cls and not kwargs:
            left.append((name, f"is {new_cls.__name__} already"))
            return None
        try:
            return _convert(module, new_cls, kwargs)
        except (TypeError, ValueError) as error:
            raise type(error)(f"convert_batch_norm, layer {name!r}: {error}") from error

    before = list(model.parameters())
    changes = Report()
    norms = {name: module for name, module in model.named_modules() if is_batch_norm(module)}
    model = replace_modules(model, policy, changes)
    new: dict[nn.Parameter, nn.Parameter] = {}
    for entry in changes.changed:
        old, layer = norms[entry.layer], model.get_submodule(entry.layer)
        lost = [key for key in ("weight", "running_var") if _has(old, key) and not _has(layer, key)]
        report.change(entry.layer, entry.what + (f", without {' and '.join(lost)}" if lost else ""))
        beside = next(old.parameters(), None)
        if beside is not None:
            new |= {p: beside for p in layer.parameters() if all(p is not q for q in before)}
    for name, why in [*left, *((entry.layer, entry.what) for entry in changes.left)]:
        report.leave(name, why)
    kept = {id(parameter) for parameter in model.parameters()}
    hand_over(optimizer, [p for p in before if id(p) not in kept], new)
    if not changes.changed:
        reasons = "; ".join(f"{entry.layer}: {entry.what}" for entry in report.left) or "no batch norm"
        warnings.warn(f"convert_batch_norm changed nothing ({reasons})", NoEffectWarning, stacklevel=2)
    return model


def _has(module: nn.Module, name: str) -> bool:
    return getattr(module, name, None) is not None


def _convert(old: BatchNorm, cls: type, kwargs: dict[str, Any]) -> nn.Module:
    affine, tracks = _has(old, "weight") or _has(old, "bias"), _has(old, "running_mean")
    settings = {"eps": old.eps, "momentum": old.momentum, "affine": affine, "track_running_stats": tracks}
    for name in ("accumulation_steps", "synchronize"):  # what ours have in common
        if hasattr(old, name) and issubclass(cls, ours.RunningStatistics):
            settings[name] = getattr(old, name)
    new = cls(old.num_features, **(settings | kwargs))
    refuse_zero_eps(new)
    reference = old.bias if isinstance(old.bias, torch.Tensor) else old.running_mean
    if isinstance(reference, torch.Tensor):
        new.to(device=reference.device)
    tensors: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
        (parameters_of(old), parameters_of(new)),
        (buffers_of(old), buffers_of(new)),
    )
    for of_old, of_new in tensors:
        of_new.update({name: of_old[name] for name in _STATE if name in of_old and name in of_new})
    if not hasattr(old, "weight"):
        with torch.no_grad():  # a variance of 1 and this scale are no scale at all, and so is this variance alone
            if _has(new, "weight"):
                new.weight.fill_((1.0 + new.eps) ** 0.5)
            elif _has(new, "running_var"):
                new.running_var.fill_(1.0 - new.eps)
    new.track_running_stats = old.track_running_stats
    if new.running_mean is not None and isinstance(new, ours.RunningStatistics):
        new.keep_statistics_in_float32()
    return new


def refuse_zero_eps(norm: nn.Module) -> None:
    """torch's batch norm takes an eps of 0 and raises in its first forward.

    Raises:
        ValueError: eps is not positive, and the norm divides by a standard deviation.
    """
    if is_batch_norm(norm) and not is_mean_only(norm) and not norm.eps > 0:
        raise ValueError(f"eps has to be positive, got {norm.eps}: {type(norm).__name__} would raise in its forward")


def dimensions_of(cls: type) -> int | None:
    """1, 2 or 3 for ``BatchNorm1d``, ``BatchNorm2d``, ``BatchNorm3d`` and whatever is named or derived so.

    >>> from torch import nn
    >>> dimensions_of(nn.BatchNorm2d), dimensions_of(nn.SyncBatchNorm)
    (2, None)
    """
    for base in cls.__mro__:
        name = base.__name__
        if name[-2:] in ("1d", "2d", "3d"):
            return int(name[-2])
    return None


def member(cls: type, dimensions: int | None) -> type:
    """The class of the same kind for inputs of so many dimensions: ``GhostBatchNorm1d`` for ``GhostBatchNorm2d`` and 1.

    Raises:
        TypeError: ``cls`` is no batch norm, or has no sibling for these dimensions.
    """
    if not (isinstance(cls, type) and issubclass(cls, BatchNorm)):
        raise TypeError(f"a batch-norm class is needed, such as nn.BatchNorm2d or GhostBatchNorm2d, got {cls!r}")
    own = dimensions_of(cls)
    if own is None or dimensions is None or own == dimensions:
        return cls
    name = f"{cls.__name__[:-2]}{dimensions}d"
    sibling = getattr(sys.modules[cls.__module__], name, None)
    if not cls.__name__.endswith(f"{own}d") or not isinstance(sibling, type):
        raise TypeError(f"{cls.__name__} has no {dimensions}-dimensional sibling {name} in {cls.__module__}")
    return sibling
