"""The error signal by layer: its ratio, its slope and the place where it is lost."""

from __future__ import annotations

import math

import pytest

from lightning_tricks.diagnosis.history.error_signal import ErrorSignalByLayer
from lightning_tricks.probes import Snapshot, WeightedRecord


def signal(*norms: float) -> ErrorSignalByLayer:
    return ErrorSignalByLayer(tuple(f"layer{k}" for k in range(len(norms))), norms)


@pytest.mark.parametrize("decades", [2.0, 0.5, -1.0])
def test_a_steady_fading_has_that_slope(decades: float) -> None:
    steady = signal(*(10.0 ** (decades * k) for k in range(6)))
    assert steady.slope == pytest.approx(decades)
    assert steady.ratio == pytest.approx(10.0 ** (-5 * decades))
    assert steady.place == "layer0"


def test_one_layer_that_takes_most_of_it_is_the_place() -> None:
    assert signal(1e-5, 1e-5, 1e-1, 1.0).place == "layer1"


def test_zeros_are_left_out_of_the_slope_and_a_single_layer_has_none() -> None:
    assert signal(0.0, 0.01, 0.1, 1.0).slope == pytest.approx(1.0)
    assert signal(0.0, 0.01, 0.1, 1.0).ratio == 0.0
    assert math.isnan(signal(1.0).slope)
    assert math.isnan(signal(1.0).ratio)
    assert math.isnan(signal(1.0, 0.0).ratio)


def test_it_is_the_norm_over_the_whole_output_without_embeddings() -> None:
    records = (
        WeightedRecord("words", "embedding", elements=9, error_signal=1.0),
        WeightedRecord("conv", "conv2d", elements=100, error_signal=0.5),
        WeightedRecord("unknown", "linear", elements=4),
        WeightedRecord("head", "linear", elements=4, error_signal=2.0),
    )
    found = ErrorSignalByLayer.of(Snapshot(weighted=records))
    assert (found.names, found.norms) == (("conv", "head"), (5.0, 4.0))


def test_a_call_without_signal_of_weights_that_have_one_is_no_layer() -> None:
    calls = [("a", 0.0), ("b", 0.0), ("a", 1.0), ("b", 2.0), ("c", 0.0)]
    weighted = [
        WeightedRecord(f"{w}_{k}", "linear", k, weight=w, elements=1, error_signal=e) for k, (w, e) in enumerate(calls)
    ]
    assert ErrorSignalByLayer.of(Snapshot(0, weighted=tuple(weighted))).names == ("a_2", "b_3", "c_4")
