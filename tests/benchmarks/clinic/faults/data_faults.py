"""Data that come in a wrong mixture, a wrong order or wrong pairs; validation that is not treated as training."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .. import data as datasets
from ..data import Data
from ..setup import Setup, binary_loss, class_loss, rarity
from .kind import Kind


def rare_class(setup: Setup, place: int, share: float) -> None:
    """One class in two is a few of a hundred of the training patterns."""
    data = setup.data
    kept = share / (1 - share)
    setup.data = datasets.imbalanced(data, kept, setup.case.seed)


def _weighted(setup: Setup, weights: Tensor | None) -> None:
    if setup.data.y.dim() > 1:
        setup.loss = binary_loss(None if weights is None else weights[1] / weights[0])
    else:
        setup.loss = class_loss(weights)


def weights_forgotten(setup: Setup, place: int, strength: float) -> None:
    """The classes of rare patterns have no weights that make up for it."""
    _weighted(setup, None)


def weights_turned(setup: Setup, place: int, strength: float) -> None:
    """Weights by how frequent a class is."""
    _weighted(setup, 1 / rarity(setup.data))


def sort_by_class(setup: Setup, place: int, strength: float) -> None:
    """A loader without shuffle=True of patterns that lie in one folder for each class."""
    setup.sorted_by = setup.data.y


def sort_by_target(setup: Setup, place: int, strength: float) -> None:
    setup.sorted_by = setup.data.y[:, 0]


def sort_by_source(setup: Setup, place: int, strength: float) -> None:
    assert setup.data.sources is not None
    setup.sorted_by = setup.data.sources


def _validated(setup: Setup, x: Tensor | None = None, y: Tensor | None = None) -> None:
    data = setup.data
    setup.data = dataclasses.replace(data, x_val=data.x_val if x is None else x, y_val=data.y_val if y is None else y)


def validation_raw(setup: Setup, place: int, strength: float) -> None:
    """Not standardized as the training patterns are."""
    _validated(setup, datasets.raw_validation(setup.case.data))


def validation_scaled(setup: Setup, place: int, factor: float) -> None:
    """Not divided as the training patterns are, or twice."""
    _validated(setup, factor * setup.data.x_val)


def validation_turned(setup: Setup, place: int, strength: float) -> None:
    """Rows for columns."""
    x = setup.data.x_val
    _validated(setup, x.view(-1, 8, 8).transpose(1, 2).flatten(1))


def validation_inverted(setup: Setup, place: int, strength: float) -> None:
    """Black for white."""
    _validated(setup, 1 - setup.data.x_val)


def other_columns(setup: Setup, place: int, strength: float) -> None:
    """The columns of the table in another order."""
    _validated(setup, setup.data.x_val.flip(1))


def other_class_order(setup: Setup, place: int, strength: float) -> None:
    """Classes numbered by the alphabet in place of their value."""
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")[: setup.data.classes]
    ranks = torch.tensor([sorted(names).index(name) for name in names])
    _validated(setup, y=ranks[setup.data.y_val])


def other_ids(setup: Setup, place: int, strength: float) -> None:
    """Words numbered by another vocabulary."""
    ids = torch.randperm(setup.data.classes, generator=torch.Generator().manual_seed(1))
    _validated(setup, ids[setup.data.x_val], ids[setup.data.y_val])


def _both(setup: Setup, function) -> None:
    """The same function of all targets."""
    data = setup.data
    setup.data = dataclasses.replace(data, y=function(data.y), y_val=function(data.y_val))


def labels_from_one(setup: Setup, place: int, strength: float) -> None:
    _both(setup, lambda y: y + 1)


def labels_of_both_signs(setup: Setup, place: int, strength: float) -> None:
    _both(setup, lambda y: 2 * y - 1)


def mask_as_image(setup: Setup, place: int, white: float) -> None:
    """Masks as they come from an image file: 0 and 255."""
    _both(setup, lambda y: int(white) * y)


def tags_under_cross_entropy(setup: Setup, place: int, strength: float) -> None:
    """Rows of several ones under a loss that takes them for probabilities."""
    setup.loss = lambda output, y: torch.nn.functional.cross_entropy(output, y.float())


def permute_labels(setup: Setup, place: int, strength: float) -> None:
    """Patterns and labels were listed in different orders."""
    data = setup.data
    order = torch.randperm(len(data.y), generator=torch.Generator().manual_seed(setup.case.seed))
    setup.data = dataclasses.replace(data, y=data.y[order])


def shuffle_apart(setup: Setup, place: int, strength: float) -> None:
    """Patterns by one loader, labels by another, both shuffle."""
    setup.apart = True


def first_pattern_only(setup: Setup, place: int, strength: float) -> None:
    """A dataset that returns its first pattern, whatever it is asked for."""

    def first(data: Data) -> Data:
        return data.map(lambda x: data.x[:1].expand(len(x), *data.x.shape[1:]))

    setup.data = first(setup.data)


def integer_division(setup: Setup, place: int, strength: float) -> None:
    """Bytes divided as whole numbers: nothing is left."""
    setup.data = setup.data.map(lambda x: (255 * x) // 256)


DATA_FAULTS: dict[str, Kind] = {
    "rare class": Kind(rare_class, "class_imbalance", "output", lost=0.1),
    "weights forgotten": Kind(weights_forgotten, "class_imbalance", "output", lost=0.1),
    "weights the wrong way round": Kind(weights_turned, "class_imbalance", "output", lost=0.1),
    "sorted by class": Kind(sort_by_class, "unshuffled_data", "training", lost=0.1),
    "sorted by target": Kind(sort_by_target, "unshuffled_data", "training", lost=0.1),
    "sorted by source": Kind(sort_by_source, "unshuffled_data", "training", lost=0.1),
    "validation raw": Kind(validation_raw, "validation_mismatch", "input", lost=0.1),
    "validation scaled": Kind(validation_scaled, "validation_mismatch", "input", lost=0.1),
    "validation turned": Kind(validation_turned, "validation_mismatch", "input", lost=0.1),
    "validation inverted": Kind(validation_inverted, "validation_mismatch", "input", lost=0.1),
    "other columns": Kind(other_columns, "validation_mismatch", "input", lost=0.1),
    "other class order": Kind(other_class_order, "validation_mismatch", "training", lost=0.1),
    "other word ids": Kind(other_ids, "validation_mismatch", "input", lost=0.1),
    "labels from one": Kind(labels_from_one, "target_mismatch", "output", in_code=True),
    "labels of both signs": Kind(labels_of_both_signs, "target_mismatch", "output", in_code=True),
    "mask of 255": Kind(mask_as_image, "target_mismatch", "output", in_code=True),
    "tags under cross entropy": Kind(tags_under_cross_entropy, "target_mismatch", "output", in_code=True),
    "labels permuted": Kind(permute_labels, "not_learning", "training", lost=0.1),
    "shuffled apart": Kind(shuffle_apart, "not_learning", "training", lost=0.1),
    # All the same input is as good a name for it: a reader is led to the same line.
    "first pattern only": Kind(
        first_pattern_only, "collapsed_output", "output", in_code=True, also=("unnormalized_input",)
    ),
    "integer division": Kind(
        integer_division, "collapsed_output", "output", in_code=True, also=("unnormalized_input",)
    ),
}
