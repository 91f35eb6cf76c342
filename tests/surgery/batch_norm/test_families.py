"""The classes of one kind, by dimensions."""

import pytest
from torch import nn

from lightning_tricks.nn import (
    BatchRenorm1d,
    BatchRenorm3d,
    GhostBatchNorm1d,
    GhostBatchNorm2d,
    GhostBatchNorm3d,
    MeanOnlyBatchNorm2d,
    MeanOnlyBatchNorm3d,
)
from lightning_tricks.surgery.batch_norm.families import dimensions_of, member


class Special(nn.BatchNorm2d):
    """A subclass whose own name does not tell."""


@pytest.mark.parametrize(
    ("cls", "dimensions"),
    [(nn.BatchNorm1d, 1), (GhostBatchNorm3d, 3), (MeanOnlyBatchNorm2d, 2), (Special, 2), (nn.SyncBatchNorm, None)],
)
def test_dimensions_of(cls, dimensions):
    assert dimensions_of(cls) == dimensions


@pytest.mark.parametrize(
    ("cls", "dimensions", "expected"),
    [
        (nn.BatchNorm2d, 1, nn.BatchNorm1d),
        (GhostBatchNorm2d, 1, GhostBatchNorm1d),
        (GhostBatchNorm2d, 2, GhostBatchNorm2d),
        (BatchRenorm1d, 3, BatchRenorm3d),
        (MeanOnlyBatchNorm2d, 3, MeanOnlyBatchNorm3d),
        (nn.SyncBatchNorm, 1, nn.SyncBatchNorm),
        (GhostBatchNorm2d, None, GhostBatchNorm2d),
        (Special, 2, Special),
    ],
)
def test_member(cls, dimensions, expected):
    assert member(cls, dimensions) is expected


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (nn.LayerNorm, "a batch-norm class is needed, such as .* got <class 'torch.*LayerNorm'>"),
        (nn.BatchNorm2d(3), "a batch-norm class is needed"),
        (Special, "Special has no 1-dimensional sibling"),
    ],
)
def test_what_is_no_batch_norm_or_stands_alone(cls, message):
    with pytest.raises(TypeError, match=message):
        member(cls, 1)
