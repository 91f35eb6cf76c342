"""paired_transforms: does an augmentation move the image and leave its mask, boxes or key points where they were?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Trait
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.experiments.asking.asks import Answer, asks
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.data.patterns.examples import SHOWN, examples_of, listed
from lightning_tricks.experiments.data.patterns.fields import Column, columns_of
from lightning_tricks.experiments.data.patterns.neighbours import Data, read_once
from lightning_tricks.experiments.preflight.patterns import NotAskedError

QUESTION = "Do targets move with their images?"
_ASKED = 24  # patterns, spread over the data set
_DRAWS = 6  # of each
_MOVES = 4  # pixels of a shift that is recognised, as a share of the side: one over it
_PLACES = ("box", "bbox", "keypoint", "landmark", "point", "corner", "joint", "mask")


@asks(QUESTION)
def paired_transforms(data: Any) -> Answer:
    """Read the same patterns several times, and look whether an image was mirrored, turned or shifted alone.

    A move is recognised where the moved image is the other one, or nearly; of masks, boxes and key points it is then
    asked whether they are the same as before, though not symmetric themselves.

    Args:
        data: A data set with numbers, or a loader of one, that gives images and targets that have places in them.

    Returns:
        Numbers: ``asked`` patterns, ``moved``: those whose image was seen moved, and ``left``: of these, those whose
        target stayed.

        How to read it: all that moved were left: the transform is one of the image alone. None moved: there is no
        augmentation, or one that cannot be recognised, such as turning by a few degrees.

    >>> from torch.utils.data import TensorDataset
    >>> whole = TensorDataset(torch.rand(30, 1, 8, 8), torch.rand(30, 8, 8).round())
    >>> paired_transforms(whole).numbers["moved"]
    0.0
    """
    return _compared(Data(data))


def _compared(data: Data) -> Answer:
    train = data.train
    if train.source is None or not _has_places(train.target, train.inputs):
        raise NotAskedError("there are no images with targets that have places, in a data set with numbers")
    places = np.unique(np.linspace(0, len(train) - 1, _ASKED).round().astype(int)).tolist()
    moved, left = list[int](), list[int]()
    for place in places:
        index = int(train.index[place])
        draws = [_image_and_target(train.source[index]) for _ in range(_DRAWS)]
        changes = [(a, b) for k, a in enumerate(draws) for b in draws[:k] if not _same(a[0], b[0])]
        pairs = [(a, b) for a, b in changes if _is_moved(a[0], b[0])]
        if pairs:
            moved.append(place)
            left += [place] if all(_same(a[1], b[1]) and not _is_symmetric(a[1]) for a, b in pairs) else []
    numbers = {"asked": float(len(places)), "moved": float(len(moved)), "left": float(len(left))}
    if not moved:
        return Answer(f"of {len(places)} patterns that were read {_DRAWS} times none was seen moved", numbers)
    text = f"of {len(moved)} images that were seen moved, {len(left)} left their target ({listed(train, left)})"
    shown = examples_of(train, ((place, "its image moved, and its target stayed") for place in left))
    return Answer(text if left else "yes", numbers, examples=shown)


def _has_places(target: Column | None, inputs: tuple[Column, ...]) -> bool:
    """Masks of the image's size, rows of two or four numbers, or what is called so."""
    images = [column for column in inputs if column.kind == "image"]
    if not images or target is None:
        return False
    space = [images[0].shape[-2:], images[0].shape[:2]]
    named = any(word in target.name.lower() for word in _PLACES)
    rows = len(target.shape) == 2 and target.shape[1] in (2, 4) and target.values.is_floating_point()
    return named or rows or tuple(target.shape[-2:]) in space or tuple(target.shape[:2]) in space


def _image_and_target(sample: Any) -> tuple[Tensor, Tensor]:
    columns = columns_of(default_collate([sample, sample]), 2)  # twice: an axis of length 1 might be any
    images = [column for column in columns if column.kind == "image" and not column.is_target]
    targets = [column for column in columns if column.is_target]
    if not images or len(targets) != 1:
        raise NotAskedError("patterns are not built alike")
    return images[0].values[0].double(), targets[0].values[0].double()


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _is_moved(one: Tensor, other: Tensor) -> bool:
    """Whether the one is the other in another place, and not only darker or noisier."""
    if one.shape != other.shape:
        return False
    as_it_is = _alike(one, other)
    turned = max((_alike(x, other) for x in _turns(one) if x.shape == other.shape), default=0.0)
    best = max(turned, _shifted(one, other))
    return best > LIMITS.alike and best - as_it_is > LIMITS.gain * (1 - as_it_is)


def _is_symmetric(target: Tensor) -> bool:
    return target.dim() >= 2 and bool((target == target.flatten()[0]).all())


def _turns(image: Tensor) -> Iterator[Tensor]:
    last = (-2, -1)
    yield image.flip(-1)
    yield image.flip(-2)
    for quarter in (1, 2, 3):
        yield image.rot90(quarter, last)


def _shifted(one: Tensor, other: Tensor) -> float:
    """How alike the two are where they overlap, one shifted as fits best."""
    x, y = (image - image.mean() for image in (one, other))
    fits = torch.fft.irfft2(torch.fft.rfft2(x).conj() * torch.fft.rfft2(y), s=x.shape[-2:])
    fits = fits.reshape(-1, *x.shape[-2:]).sum(0)
    height, width = x.shape[-2:]
    down, right = divmod(int(fits.argmax()), width)
    down, right = (down - height if 2 * down > height else down), (right - width if 2 * right > width else right)
    if (down, right) == (0, 0) or _MOVES * abs(down) > height or _MOVES * abs(right) > width:
        return 0.0
    there = y[..., max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
    here = x[..., max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
    return _alike(here, there)


def _alike(one: Tensor, other: Tensor) -> float:
    """Correlation."""
    x, y = one - one.mean(), other - other.mean()
    size = float(x.norm() * y.norm())
    return float((x * y).sum()) / size if size > 0 else 0.0


@thresholds
class LIMITS:
    alike: float = 0.98  # correlation of the moved image with the other: noise and brightness may come on top
    gain: float = 0.5  # of what is open without the move
    moved: float = 3.0  # patterns
    left: float = 0.9  # of those that moved: some masks are symmetric, so that they stay by right


def judged(found: Experiment, step: int = 0) -> Iterator[Finding]:
    """Images that move alone."""
    moved, left = found.numbers["moved"], found.numbers["left"]
    why = (
        Criterion("patterns whose image was seen moved", moved, ">=", LIMITS.moved),
        Criterion("share of these whose target stayed", left / max(moved, 1), ">=", LIMITS.left),
    )
    if not all(each.holds for each in why):
        return
    indices = ", ".join(str(each.index) for each in found.examples[:SHOWN])
    explanation = (
        f"The same patterns were read several times: {int(moved)} images came mirrored, turned or shifted, and in "
        f"{int(left)} of them the target stayed where it was. The network is shown places where nothing is."
    )
    text = "move both at once: torchvision.transforms.v2 with tv_tensors.Mask or BoundingBoxes, or flip the target too"
    todo = Remedy("paired_transform", text)
    traits = frozenset({Trait.LEFT_BEHIND})
    yield Finding(
        "target_mismatch",
        None,
        "warning",
        step,
        {**found.numbers, "examples": indices},
        explanation,
        (todo,),
        traits=traits,
        decided_by=why,
    )


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    return judged(found, subject.diagnosis.history[0].step)


def _wanted(subject: Subject) -> bool:
    try:
        train = read_once(subject).train
    except Exception:  # the experiments before this one say why they cannot be read
        return False
    return train.source is not None and _has_places(train.target, train.inputs)


@tried("paired_transforms", order=26, wanted=_wanted, brings=_brings)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject)


_asked = asks(QUESTION, "paired_transforms")(lambda subject: _compared(read_once(subject)))
