"""Kinds of layers that running a model has to know."""

import re
from pathlib import Path

import pytest
from torch import nn

import lightning_tricks
from lightning_tricks.init import weight_blocks
from lightning_tricks.model.layers import (
    has_running_statistics,
    is_batch_norm,
    is_mean_only,
    is_normalization,
    is_weighted,
)
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


@pytest.mark.parametrize("layer", NORMS, ids=lambda layer: type(layer).__name__)
def test_one_predicate_for_batch_norm(layer):
    assert is_batch_norm(layer) == (type(layer) is not nn.InstanceNorm1d)
    assert is_mean_only(layer) == (type(layer) is MeanOnlyBatchNorm3d)
    assert is_normalization(layer)


@pytest.mark.parametrize("layer", [nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.RMSNorm(2), nn.Linear(2, 2)])
def test_what_is_no_batch_norm(layer):
    assert not is_batch_norm(layer)
    assert is_normalization(layer) == (type(layer) is not nn.Linear)


def test_nobody_else_has_an_idea_of_its_own():
    """What a batch norm is stands in one place: the base classes of torch know neither all of them nor them alone."""
    package = Path(lightning_tricks.__file__).parent
    own = re.compile(r"NormBase|isinstance\([^()]*,[^()]*\bBatchNorm\b|torch\.nn\.modules\.batchnorm")
    found = [path.relative_to(package) for path in package.rglob("*.py") if own.search(path.read_text())]
    assert [path.as_posix() for path in found if path.parts[0] != "_compat"] == ["model/layers.py"]
