import math

import pytest
import torch
from torch import nn

from lightning_tricks.probes import probe
from lightning_tricks.report.layers import Row, choose, layer_rows


def test_a_weighted_layer_shares_its_row_with_the_activation_behind_it(sigmoids):
    rows = layer_rows(sigmoids[-1])
    assert [row.label() for row in rows] == ["0, 1", "2, 3", "4, 5", "6, 7", "8, 9", "10, 11", "12"]
    assert [row.function for row in rows] == ["linear, sigmoid"] * 6 + ["linear"]
    snapshot = sigmoids[-1]
    for row, activation, weighted in zip(rows, snapshot.activations, snapshot.weighted, strict=False):
        ratio = next(p.update_ratio for p in snapshot.parameters if p.name == f"{weighted.name}.weight")
        assert row.values["update_ratio"] == ratio
        for name in ("mean", "std", "linearity", "saturation", "error_signal", "transmission"):
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
