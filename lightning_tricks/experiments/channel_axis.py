"""channel_axis: do the channels of images lie where the first convolution reads them?"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Trait
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.experiments.asking.asks import Answer, LossFunction, asks, copied, same_draws
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training import Training

QUESTION = "Do the channels of images lie where the first convolution reads them?"
_COLOURS = (1, 3, 4)
_SIDE = 8  # pixels, at the least
_PATTERNS = 64


@asks(QUESTION)
def channel_axis(model: nn.Module | Training, batch: Any, loss_fn: LossFunction | None = None) -> Answer:
    """What the first convolution is given, as it is: how much neighbours along each axis differ.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``.
        batch: One batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.

    Returns:
        Numbers: ``channels``, ``height``, ``width`` as the convolution reads them; ``along_channels`` and
        ``along_height``: the mean square of what neighbours differ by, over that of any two;
        ``last``: whether the channels lie last; ``apart``: along the height, what rows
        differ that are as many apart as there are channels, over what neighbours do.

        How to read it: along an axis of space neighbours are alike (under .75), what is further apart is less so. So
        ``apart`` is over 1 of images; under a half, rows were cut in pieces by a view in place of a permutation.

    >>> import torch
    >>> x = torch.rand(8, 1, 16, 16).cumsum(2).cumsum(3)
    >>> net = nn.Sequential(nn.Conv2d(16, 4, 3, padding=1), nn.Flatten(), nn.LazyLinear(2))
    >>> batch = x.permute(0, 2, 3, 1), torch.arange(8) % 2
    >>> _ = net(batch[0])
    >>> channel_axis(net, batch, nn.functional.cross_entropy).numbers["last"]
    1.0
    """
    return _measured(copied(model, loss_fn), batch)


@dataclasses.dataclass(frozen=True)
class _Given:
    """What a convolution was given."""

    name: str
    layer: nn.Conv2d
    x: Tensor


def _measured(training: Training, batch: Any) -> Answer:
    given = _first(training, batch)
    x = given.x[:_PATTERNS].float()
    _, channels, height, width = x.shape
    x = x - x.mean()
    whole = float(x.square().mean())
    if not whole > 0:
        raise NotAskedError("the convolution is given the same number everywhere")
    numbers = {"channels": float(channels), "height": float(height), "width": float(width)}
    numbers["along_channels"], numbers["along_height"] = _differ(x, 1, 1), _differ(x, 2, 1)
    last = width in _COLOURS and min(channels, height) >= _SIDE and (width > 1 or channels == height)
    last = last and given.layer.kernel_size[1] > 1 and all(_is_space(x, axis) for axis in (1, 2))
    numbers["last"] = float(last)
    if channels in _COLOURS and channels > 1 and height >= 2 * channels:
        numbers["apart"] = _differ(x, 2, channels) / max(numbers["along_height"], 1e-9)
    said = "no: the channels lie last" if last else "yes"
    if numbers.get("apart", math.inf) < LIMITS.apart:
        said = "no: rows are cut in pieces"
    return Answer(f"{said}, read as {channels} channels of {height} x {width}", numbers, place=given.name)


def _first(training: Training, batch: Any) -> _Given:
    """The first convolution that is given data, and no output of a layer with weights."""
    found = list[_Given]()
    with contextlib.ExitStack() as stack:
        for name, module in training.module.named_modules():
            if isinstance(module, nn.Conv2d):

                def note(layer: nn.Module, args: tuple[Any, ...], name: str = name) -> None:
                    x = args[0] if args else None
                    if isinstance(x, Tensor) and x.dim() == 4 and not x.requires_grad and isinstance(layer, nn.Conv2d):
                        found.append(_Given(name, layer, x.detach()))

                stack.callback(module.register_forward_pre_hook(note).remove)
        with same_draws():
            training.loss(batch)
    if not found:
        raise NotAskedError("no convolution over images is given data as they are")
    return found[0]


def _differ(x: Tensor, axis: int, lag: int) -> float:
    """Mean square of what numbers so far apart along an axis differ by, over that of any two."""
    length = x.shape[axis] - lag
    if length < 1:
        return math.nan
    apart = x.narrow(axis, lag, length) - x.narrow(axis, 0, length)
    return float(apart.square().mean() / (2 * x.square().mean()))


def _is_space(x: Tensor, axis: int) -> bool:
    near, far = _differ(x, axis, 1), _differ(x, axis, x.shape[axis] // 4)
    return near < LIMITS.alike and far > LIMITS.further * near


@thresholds
class LIMITS:
    alike: float = 0.75  # neighbours in an image, over any two pixels: photographs have .02 to .2, digits of 8 x 8 more
    further: float = 1.25  # what lies a quarter of the side apart, over that; of channels and of noise 1
    apart: float = 0.5  # rows as far apart as there are channels, over neighbours: of images it is over 1


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    """Images whose channels lie elsewhere."""
    numbers = found.numbers
    channels, height, width = (int(numbers[name]) for name in ("channels", "height", "width"))
    apart = Criterion("rows apart by the channels, over neighbours", numbers.get("apart", math.inf), "<", LIMITS.apart)
    alike = Criterion("what neighbouring channels differ, over any two", numbers["along_channels"], "<", LIMITS.alike)
    if numbers["last"]:
        why, line = alike, f"x.permute(0, 3, 1, 2), nn.Conv2d({width}, ...)"
        shown = (
            f"{found.place} reads images of {channels} x {height} with {width} channels as {channels} channels of "
            f"{height} x {width}: along what it takes for channels neighbours are as alike as pixels are"
        )
    elif apart.holds:
        why, line = apart, f"x.permute(0, 3, 1, 2) of images [N, {height}, {width}, {channels}], not x.view(...)"
        shown = (
            f"Of what {found.place} takes for images of {channels} channels, rows that lie {channels} apart are more "
            "alike than neighbours: channels that lay last were brought to the front by a view, which cuts "
            "rows in pieces"
        )
    else:
        return
    explanation = f"{shown}. The filters look at what does not lie together."
    todo = Remedy("channels_first", f"{line}: channels come first", found.place)
    given = dict(numbers), explanation, (todo,)
    step = subject.diagnosis.history[0].step
    traits = frozenset({Trait.LAYOUT})
    yield Finding("unnormalized_input", found.place, "warning", step, *given, traits=traits, decided_by=(why,))


def _wanted(subject: Subject) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in subject.model.modules())


@tried("channel_axis", order=29, wanted=_wanted, brings=_brings)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject.training.copy(), subject.batch)


_asked = asks(QUESTION, "channel_axis")(_measured)
