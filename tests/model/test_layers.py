"""Kinds of layers that running a model has to know."""

import pytest
from torch import nn

from lightning_tricks.init import weight_blocks
from lightning_tricks.model.layers import has_running_statistics, is_weighted
from lightning_tricks.nn import BatchRenorm1d, GhostBatchNorm2d, MeanOnlyBatchNorm3d

WEIGHTED = [
    nn.Linear(2, 2),
    nn.Bilinear(2, 2, 2),
    nn.Conv1d(2, 2, 1),
    nn.ConvTranspose3d(2, 2, 1),
    nn.Embedding(2, 2),
    nn.EmbeddingBag(2, 2),
    nn.MultiheadAttention(2, 1),
    nn.LSTM(2, 2),
    nn.GRUCell(2, 2),
]
NORMS = [
    nn.BatchNorm1d(2),
    nn.SyncBatchNorm(2),
    nn.LazyBatchNorm2d(),
    nn.InstanceNorm1d(2),
    GhostBatchNorm2d(2),
    BatchRenorm1d(2),
    MeanOnlyBatchNorm3d(2),
]


@pytest.mark.parametrize("layer", WEIGHTED, ids=lambda layer: type(layer).__name__)
def test_weighted_layers_have_blocks(layer):
    assert is_weighted(layer)
    assert weight_blocks(layer)
    assert not has_running_statistics(layer)


@pytest.mark.parametrize("layer", NORMS, ids=lambda layer: type(layer).__name__)
def test_norms_whose_flag_counts(layer):
    assert has_running_statistics(layer)
    assert not is_weighted(layer)


def test_other_norms():
    assert not any(map(has_running_statistics, (nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.Dropout())))
