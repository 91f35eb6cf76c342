"""Arms that change what is fed: mixed batches, input of mean 0 and standard deviation 1, targets alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks._compat.torch_modules import ConvNd
from lightning_tricks.experiments.arms.arm import Arm, Setting, of_model
from lightning_tricks.experiments.arms.batches import MOST_HELD
from lightning_tricks.experiments.arms.places import float_targets
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training.training import Training
from lightning_tricks.model.batches import number_of_samples, tensors_in
from lightning_tricks.nn.standardize import standardize_before

OFF = 0.05  # of a mean over its standard deviation, and of the logarithm of that: what is nearer is standardised


def _inputs(setting: Setting) -> tuple[str, Tensor]:
    """The path of the module that takes them, and many of them.

    Raises:
        NotAskedError: What goes in is none of the batch's tensors.
    """
    path, given = setting.places.entry
    for position, tensor in enumerate(tensors_in(setting.batches.train[0])):
        if tensor.shape == given.shape and torch.equal(tensor.to(given), given):
            parts, count = [], 0
            for batch in setting.batches.train:
                parts.append(list(tensors_in(batch))[position])
                count += number_of_samples(batch)
                if count >= 4 * MOST_HELD:
                    break
            return path, torch.cat(parts) if len({p.shape[1:] for p in parts}) == 1 else given
    return path, given  # the step changes it on the way: the first batch has to do


def _statistics(setting: Setting, x: Tensor) -> tuple[Tensor, Tensor]:
    """For every feature, in the shape to be taken away: the last axis, of images and what is convolved axis 1."""
    x = x.detach().double()
    first = setting.places.first_weighted
    axis = 1 if x.dim() > 3 or isinstance(first, ConvNd) else x.dim() - 1
    others = [k for k in range(x.dim()) if k != axis]
    mean, scale = x.mean(others, keepdim=True), x.std(others, unbiased=False, keepdim=True)
    return mean, torch.where(scale > 0, scale, 1.0)


def _unstandardised(training: Training, setting: Setting) -> bool:
    try:
        mean, scale = _statistics(setting, _inputs(setting)[1])
    except NotAskedError:
        return False
    return bool((mean / scale).abs().max() > OFF or scale.log().abs().max() > OFF)


def _standardize_input(model: nn.Module, setting: Setting) -> None:
    path, x = _inputs(setting)
    module = model.get_submodule(path) if path else model
    if hasattr(module, "input_mean"):
        raise NotAskedError("its input is standardised already")
    mean, scale = _statistics(setting, x)
    like = next((p for p in module.parameters() if p.is_floating_point()), x)
    standardize_before(module, mean.to(like), scale.to(like))


class _Targets:
    """Targets of a batch to mean 0 and standard deviation 1, and outputs back to where they were."""

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        self.mean, self.scale = mean, scale

    def prepare(self, batch: Any) -> Any:
        y = list(tensors_in(batch))[1]
        return _with(batch, y, (y - self.mean.to(y)) / self.scale.to(y))

    def after(self, module: nn.Module, args: Any, output: Any) -> Any:
        """A forward hook: what is put out in evaluation mode stands for the targets as they are."""
        return output if module.training else output * self.scale.to(output) + self.mean.to(output)


def _with(batch: Any, old: Tensor, new: Tensor) -> Any:
    if batch is old:
        return new
    if isinstance(batch, dict):
        return {key: _with(value, old, new) for key, value in batch.items()}
    return type(batch)(_with(value, old, new) for value in batch) if isinstance(batch, (list, tuple)) else batch


def _target_statistics(setting: Setting) -> tuple[Tensor, Tensor]:
    y = torch.cat([list(tensors_in(batch))[1].double() for batch in setting.batches.train[:64]])
    return y.mean(), y.std(unbiased=False)


def _targets_are_off(training: Training, setting: Setting) -> bool:
    if type(setting.batches.train[0]) not in (list, tuple, dict) or float_targets(setting.batches.train[0]) is None:
        return False
    mean, scale = _target_statistics(setting)
    return bool(scale > 0 and ((mean / scale).abs() > 0.5 or scale.log().abs() > 0.7))  # half a std; a factor of two


def _standardize_targets(training: Training, setting: Setting) -> None:
    if len(setting.places.calls) != 1 or not isinstance(setting.places.output, Tensor):
        raise NotAskedError("its output is not that of one call")
    mean, scale = _target_statistics(setting)
    targets, path = _Targets(mean.float(), scale.float()), setting.places.calls[0][0]
    module = training.module.get_submodule(path) if path else training.module
    training.prepare = targets.prepare
    module.register_forward_hook(targets.after)


def _standardize_both(training: Training, setting: Setting) -> None:
    _standardize_targets(training, setting)
    if _unstandardised(training, setting):
        _standardize_input(training.module, setting)
        training.renew()


def _targets_advice(training: Training, setting: Setting) -> dict[str, Any]:
    mean, scale = _target_statistics(setting)
    return {"targets": (float(mean), float(scale))}


def _unshuffled(training: Training, setting: Setting) -> bool:
    return not setting.batches.shuffles and len(setting.batches.train) > 1


DATA = (
    Arm(
        "shuffle",
        "undo",
        "shuffle",
        "shuffle the training data: DataLoader(..., shuffle=True)",
        lambda training, setting: None,
        _unshuffled,
        advice=lambda training, setting: {"shuffle": True},
        batches=lambda batches: batches.shuffled(),
    ),
    of_model(
        "standardize_input",
        "undo",
        "standardize_input",
        "normalise the input: put lt.nn.Standardize.fit(train_loader) first",
        _standardize_input,
        _unstandardised,
    ),
    Arm(
        "standardize_targets",
        "undo",
        "scale_targets",
        "train on targets of mean 0 and standard deviation 1",
        _standardize_targets,
        _targets_are_off,
        advice=_targets_advice,
    ),
    Arm(
        "standardize_both",
        "undo",
        "scale_targets",
        "train on targets and inputs of mean 0 and standard deviation 1",
        _standardize_both,
        lambda training, setting: _targets_are_off(training, setting) and _unstandardised(training, setting),
        on_model=_standardize_input,
        advice=_targets_advice,
    ),
)
