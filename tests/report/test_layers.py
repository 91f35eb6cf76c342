import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_tricks.diagnosis.history.error_signal import ErrorSignalByLayer
from lightning_tricks.probes import probe
from lightning_tricks.report.figures import depth
from lightning_tricks.report.layers import COLUMNS, Row, choose, layer_rows


def test_a_weighted_layer_shares_its_row_with_the_activation_behind_it(sigmoids):
    rows = layer_rows(sigmoids[-1])
    assert [row.label() for row in rows] == ["0, 1", "2, 3", "4, 5", "6, 7", "8, 9", "10, 11", "12"]
    assert [row.function for row in rows] == ["linear, sigmoid"] * 6 + ["linear"]
    snapshot = sigmoids[-1]
    for row, activation, weighted in zip(rows, snapshot.activations, snapshot.weighted, strict=False):
        ratio = next(p.update_ratio for p in snapshot.parameters if p.name == f"{weighted.name}.weight")
        assert row.values["update_ratio"] == ratio
        for name in ("mean", "std", "linearity", "saturation", "transmission"):
            assert row.values[name] == getattr(activation, name)
        assert "activity" not in row.values  # a sigmoid has no hard zero


def test_normalisation_in_between_keeps_them_apart():
    torch.manual_seed(0)
    model = nn.ModuleDict({"fc": nn.Linear(4, 4), "norm": nn.BatchNorm1d(4), "act": nn.ReLU()})
    with probe(model) as p:
        model["act"](model["norm"](model["fc"](torch.randn(16, 4) + 3))).sum().backward()
    rows = layer_rows(p.snapshot())
    assert [row.label() for row in rows] == ["fc", "act"]
    assert rows[0].values["mean"] == p.snapshot().weighted[0].mean
    assert rows[1].values["mean"] == pytest.approx(0, abs=1e-6)


def test_a_rectifier_is_active_or_dead_and_never_saturated(rectifiers):
    row = layer_rows(rectifiers[-1])[0]
    assert {"activity", "dead_share"} <= set(row.values)
    assert "saturation" not in row.values


def test_nan_is_left_out_and_named(spoilt):
    rows = layer_rows(spoilt[1])
    assert all(row.nonfinite for row in rows)
    assert not any(math.isnan(value) for row in rows for value in row.values.values())


def row(i):
    return Row((f"layer{i}",), "linear", {})


def test_a_short_model_is_shown_whole():
    rows = [row(i) for i in range(24)]
    assert choose(rows, {"layer9"}) == rows


@pytest.mark.parametrize("faulty", [set(), {"layer50"}, {f"layer{i}" for i in range(100)}, {"layer8"}, {"layer99"}])
def test_a_long_model_keeps_its_ends_and_the_first_faulty_layers(faulty):
    rows = [row(i) for i in range(100)]
    shown = choose(rows, faulty)
    kept = [item for item in shown if isinstance(item, Row)]
    assert kept[:8] == rows[:8]
    assert kept[-5:] == rows[-5:]
    assert all(row(i) in kept for i in (50, 8, 99) if faulty == {f"layer{i}"})
    assert len(kept) + sum(item for item in shown if isinstance(item, int)) == 100
    assert len(kept) <= 19
    position = 0  # each number stands where its layers are missing
    for item in shown:
        if isinstance(item, int):
            position += item
        else:
            assert item == rows[position]
            position += 1


def test_a_name_is_shown_below_the_module_that_all_are_under():
    both = Row(("net.block.0", "net.block.1"), "linear, relu", {})
    assert both.label() == "net.block.0, .1"
    assert both.label("net") == "block.0, .1"
    assert both.label("net.block") == "0, 1"
    assert both.first("net") == "block.0"


def test_shares_of_what_is_nan_are_left_blank(rectifiers):
    record = dataclasses.replace(rectifiers[-1].activations[1], nonfinite=True, mean=math.inf)
    rows = layer_rows(dataclasses.replace(rectifiers[-1], activations=(record,), weighted=()))
    assert not {"linearity", "activity", "dead_share", "saturation", "transmission"} & set(rows[0].values)
    assert rows[0].values["mean"] == math.inf


@pytest.mark.parametrize(
    ("name", "sign"),
    [("mean", 1), ("mean", -1), ("std", 1), ("signal", 1), ("update_ratio", 1), ("transmission", 1)],
)
@pytest.mark.parametrize(
    "size", [0.0, 3.14e-120, 2.2e-12, 2.2e-3, 0.0456, 0.9996, 12.34, 123.4, 45678.9, 9.99e6, 8e120]
)
def test_a_number_fits_its_column(name, sign, size):
    column = COLUMNS[name]
    shown = column.write(sign * size)
    assert len(shown) <= column.width
    assert float(shown) == pytest.approx(sign * size, rel=0.1, abs=5e-4 if name == "transmission" else 0)


def test_the_error_signal_is_told_by_one_number(sigmoids):
    """The table's, the picture's and a finding's are the norm over that of the last layer."""
    snapshot = sigmoids[-1]
    signal = ErrorSignalByLayer.of(snapshot)
    rows = layer_rows(snapshot)
    assert rows[0].values["signal"] == signal.ratio
    assert [row.values["signal"] for row in rows] == list(signal.relative.values())
    assert rows[-1].values["signal"] == 1.0
    assert layer_rows(snapshot, ["0", "1"])[0].values["signal"] == signal.ratio  # whatever else is shown
    np.testing.assert_array_equal(depth.error_signals(snapshot, signal.names), list(signal.relative.values()))


def test_numbers_without_a_column_are_those_of_the_activation_and_the_weights(sigmoids):
    row = layer_rows(sigmoids[-1])[0]
    weight = next(p for p in sigmoids[-1].parameters if p.name == "0.weight")
    assert row.values["mean_energy"] == sigmoids[-1].activations[0].mean_energy
    assert (row.values["update_coherence"], row.values["mean_drift"]) == (weight.update_coherence, weight.mean_drift)
