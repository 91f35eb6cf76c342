"""The measures of a parameter from its sums; merging."""

import math

import pytest
import torch

from lightning_tricks.probes.records.parameters import ParameterRecord
from lightning_tricks.stats import ParameterSums, RowVectors, SquareSums, to_host

W = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
DW = torch.tensor([[0.3, -0.4], [0.0, 0.0]])


def record(update=True):
    step = SquareSums.of(DW) if update else None
    sums = ParameterSums(
        SquareSums.of(W), (W - W[:1]).abs().sum(), SquareSums.of(10 * DW), step, RowVectors.of(DW, None, None)
    )
    sums = sums.with_arrays(iter(to_host(sums.arrays())))
    return ParameterRecord.of("net.0.weight", "net.0", (2, 2), 2, sums)


def test_measures():
    found = record()
    assert found.weight == pytest.approx(2.5)
    assert found.update == pytest.approx(0.25)
    assert found.gradient == pytest.approx(2.5)
    assert found.update_ratio == pytest.approx(0.1)
    assert found.update_coherence == pytest.approx(0.1 / 0.7)
    assert math.isnan(found.mean_drift)
    assert not found.symmetric
    assert math.isnan(record(update=False).update_ratio)


def test_two_steps_merge():
    assert record().merge(record()).measures() == pytest.approx(record().measures(), nan_ok=True)
