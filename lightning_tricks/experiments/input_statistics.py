"""input_statistics: does the input have the scale with which the first batch norm's statistics were gathered?"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Container, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.diagnosis.rules.validation_mismatch import LIMITS as OF_VALIDATION
from lightning_tricks.experiments.asking.asks import Answer, LossFunction, asks, copied, same_draws
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.preflight.patterns import NotAskedError, mapped
from lightning_tricks.experiments.training import Training
from lightning_tricks.model.batches import tensors_in
from lightning_tricks.model.layers import has_running_statistics

QUESTION = "Does the input have the scale that the first batch norm was trained with?"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, in [0, 1]


@dataclasses.dataclass(frozen=True)
class _Scale:
    """A scale that images may have been meant to have: the line that gives it, and of which images that can be."""

    line: str
    apply: Callable[[Tensor, Tensor, Tensor], Tensor]  # of images, mean and std
    kind: str


_SCALES = (
    _Scale("transforms.Normalize({mean}, {std})", lambda x, mean, std: (x - mean) / std, "unit"),
    _Scale("x = 2 * x - 1", lambda x, mean, std: 2 * x - 1, "unit"),
    _Scale("x = x * 255", lambda x, mean, std: x * 255, "unit"),
    _Scale("x = x / 255, then Normalize({mean}, {std})", lambda x, mean, std: (x / 255 - mean) / std, "bytes"),
    _Scale("x = x / 255", lambda x, mean, std: x / 255, "bytes"),
    _Scale("no Normalize({mean}, {std}): it is made so already", lambda x, mean, std: x * std + mean, "centred"),
)


@asks(QUESTION)
def input_statistics(model: nn.Module | Training, batch: Any, loss_fn: LossFunction | None = None) -> Answer:
    """What comes into the first batch norm, beside the running statistics with which it came; then with other scales.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``; with weights
            that were trained, as a backbone's are.
        batch: One batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.

    Returns:
        Numbers, medians over channels: ``ratio`` of the standard deviations to the running ones; ``shift`` of the
        means, in running ones; ``best_ratio`` and ``best_shift``: with another scale, where one fits; ``as_set``:
        whether the norm uses its running statistics in the training.

        How to read it: a ratio of 1/4 is that of images in [0, 1] where ImageNet's mean and std were taken off, 57 that
        of bytes. Other pictures have other statistics: only a scale that mends it shows that it is the scale.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> input_statistics(net, (torch.rand(8, 3, 8, 8), torch.arange(8) % 2), nn.functional.cross_entropy).answer
    'the first batch norm is a new one'
    """
    return _measured(copied(model, loss_fn), batch)


def _measured(training: Training, batch: Any) -> Answer:
    known = {
        name: (norm.running_mean.detach().clone().float(), norm.running_var.detach().clone().float())
        for name, norm in training.module.named_modules()
        if has_running_statistics(norm) and isinstance(getattr(norm, "running_mean", None), Tensor)
    }
    first, as_set, x = _first(training, batch, known)
    mean, variance = known[first]
    if not bool(mean.any()) and bool((variance == 1).all()):
        raise NotAskedError("the first batch norm is a new one")
    ratio, shift = _off(x, mean, variance)
    numbers = {"ratio": ratio, "shift": shift, "as_set": float(as_set)}
    text = f"{ratio:.3g} times the standard deviation, and {shift:.3g} of them off, at {first}"
    kinds = {_kind(x) for x in tensors_in(batch) if _is_coloured(x)} if _is_off(ratio, shift) else set()
    fits = dict[str, tuple[float, float]]()
    for scale in _SCALES:
        if scale.kind in kinds:
            other = mapped(batch, lambda x, scale=scale: _scaled(x, scale))
            fits[scale.line] = _off(_first(training, other, known)[2], mean, variance)
    best = min(fits, key=lambda line: _far(*fits[line]), default="")
    if not best or not _fits(*fits[best]):
        return Answer(f"about: {text}", numbers, place=first)
    numbers |= {"best_ratio": fits[best][0], "best_shift": fits[best][1]}
    return Answer(f"no: {text}; it fits with {best.format(mean=_MEAN, std=_STD)}", numbers, place=first)


class _SeenError(Exception):
    """Ends a forward where all was seen."""


def _first(training: Training, batch: Any, known: Container[str]) -> tuple[str, bool, Tensor]:
    """The first norm that is called, whether it uses its running statistics, and what it is given."""
    seen = list[tuple[str, bool, Tensor]]()
    with contextlib.ExitStack() as stack, same_draws():
        for name, norm in training.module.named_modules():
            if name in known:

                def note(layer: nn.Module, args: tuple[Any, ...], name: str = name) -> None:
                    seen.append((name, not layer.training, args[0].detach().float()))
                    raise _SeenError

                stack.callback(norm.register_forward_pre_hook(note).remove)
        try:
            training.loss(batch)
        except NotAskedError:
            if not seen:
                raise
    if not seen:
        raise NotAskedError("no layer that keeps running statistics is called")
    return seen[0]


def _is_coloured(x: Tensor) -> bool:
    return x.dim() == 4 and x.shape[1] == 3 and x.is_floating_point()


def _kind(x: Tensor) -> str:
    low, high = float(x.min()), float(x.max())
    return "centred" if low < 0 else "unit" if high <= 1 else "bytes" if 2 < high <= 255 else ""


def _scaled(x: Tensor, scale: _Scale) -> Tensor:
    if not _is_coloured(x):
        return x
    mean, std = (torch.tensor(each, dtype=x.dtype, device=x.device).view(1, 3, 1, 1) for each in (_MEAN, _STD))
    return scale.apply(x, mean, std)


def _off(x: Tensor, mean: Tensor, variance: Tensor) -> tuple[float, float]:
    """Medians over channels: the standard deviation over the running one, and how far the mean is off in these."""
    x = x.movedim(1, 0).flatten(1)
    std = variance.sqrt().clamp(min=1e-12)
    return float((x.std(1) / std).median()), float(((x.mean(1) - mean).abs() / std).median())


def _far(ratio: float, shift: float) -> float:
    return max(ratio, 1 / max(ratio, 1e-12)) + shift


def _is_off(ratio: float, shift: float) -> bool:
    return max(ratio, 1 / max(ratio, 1e-12)) > LIMITS.ratio or shift > LIMITS.shift


def _fits(ratio: float, shift: float) -> bool:
    return max(ratio, 1 / max(ratio, 1e-12)) < LIMITS.fits and shift < LIMITS.near


@thresholds
class LIMITS:
    ratio: float = OF_VALIDATION.ratio  # of standard deviations, as between training and validation
    shift: float = OF_VALIDATION.shift  # of means, in standard deviations
    fits: float = 1.7  # of standard deviations, with another scale; half of the way, in logarithms
    near: float = 0.5  # of means


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    """Images of another scale than those that trained the first layers, which do not adapt to it."""
    numbers, best = found.numbers, found.answer.partition("it fits with ")[2]
    if "best_ratio" not in numbers or subject.knows("unnormalized_input"):
        return
    ratio, shift = numbers["ratio"], numbers["shift"]
    why = [
        Criterion("standard deviation over the running one", ratio, ">" if ratio > 1 else "<", _limit(ratio)),
        Criterion("mean off, in running standard deviations", shift, ">", LIMITS.shift),
    ]
    decided = (
        *(each for each in why if each.holds),
        Criterion("standard deviation with another scale", numbers["best_ratio"], "<", LIMITS.fits),
        Criterion("mean off with another scale", numbers["best_shift"], "<", LIMITS.near),
    )
    explanation = (
        f"What comes into {found.place} has {ratio:.3g} times the standard deviation of its running statistics, which "
        f"came with the weights, and a mean that is {shift:.3g} of these off; with another scale of the images it has "
        f"{numbers['best_ratio']:.3g} times and {numbers['best_shift']:.3g}. "
        + (
            "The norm uses them as they are."
            if numbers["as_set"]
            else "The norm takes the batch's own and gets used to them."
        )
    )
    todo = Remedy("same_scale", f"prepare images as those that the weights were trained with: {best}")
    severity: Severity = "warning" if numbers["as_set"] else "info"
    step = subject.diagnosis.history[0].step
    given = dict(numbers), explanation, (todo,)
    yield Finding("unnormalized_input", found.place, severity, step, *given, decided_by=decided)


def _limit(ratio: float) -> float:
    return LIMITS.ratio if ratio > 1 else 1 / LIMITS.ratio


def _wanted(subject: Subject) -> bool:
    norms = [module for module in subject.model.modules() if has_running_statistics(module)]
    means = [getattr(norm, "running_mean", None) for norm in norms]
    trained = any(isinstance(mean, Tensor) and bool(mean.any()) for mean in means)
    return trained and any(isinstance(module, nn.Conv2d) for module in subject.model.modules())


@tried("input_statistics", order=30, wanted=_wanted, brings=_brings)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject.training.copy(), subject.batch)


_asked = asks(QUESTION, "input_statistics")(_measured)
