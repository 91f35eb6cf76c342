"""Measures: what one decorator brings; records from and to plain JSON."""

import dataclasses
import json
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from lightning_tricks.probes import ActivationRecord, ParameterRecord, WeightedRecord, probe
from lightning_tricks.probes.records.record import StepRecord, measure, to_json
from lightning_tricks.report import layers
from lightning_tricks.stats import ActivationSums, MomentSums, SquareSums


@dataclasses.dataclass(frozen=True)
class MyRecord(StepRecord):
    units: int = 0

    @measure("largest", 8, ".2f", "the largest mean of a unit", needed=9, monitor="activations")
    @staticmethod
    def largest_mean(sums: MomentSums) -> float:
        """The largest mean of a unit."""
        return float(np.max(sums.mean))

    @measure()
    @staticmethod
    def error_signal(signal: SquareSums) -> float:
        """Root mean square."""
        return signal.rms

    nonfinite: bool = False
    sums: MomentSums | None = dataclasses.field(default=None, repr=False, compare=False)


SUMS = MomentSums(4, np.array([1.0, 3.0]), np.array([0.0, 2.0]))


def test_a_measure_is_a_field_where_it_stands():
    assert [f.name for f in dataclasses.fields(MyRecord)] == [
        "name",
        "units",
        "largest_mean",
        "error_signal",
        "nonfinite",
        "sums",
    ]
    record = MyRecord("layer", 2, **MyRecord.measured(sums=SUMS, signal=SquareSums(2, 8.0)))
    assert record.measures() == {"largest_mean": 3.0, "error_signal": 2.0}
    assert math.isnan(MyRecord("layer", **MyRecord.measured(sums=SUMS)).error_signal)
    assert record.logged("activations") == {"largest_mean": 3.0}
    assert record.logged("gradients") == {}
    assert math.isnan(MyRecord("layer").largest_mean)
    assert MyRecord("layer", largest_mean=0.5).largest_mean == 0.5


def test_records_are_frozen_values():
    record = MyRecord("layer", largest_mean=0.5, error_signal=1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.largest_mean = 1.0
    assert record == MyRecord("layer", largest_mean=0.5, error_signal=1.0)
    assert record != dataclasses.replace(record, largest_mean=0.6)
    assert pickle.loads(pickle.dumps(record)) == record
    assert "largest_mean=0.5" in repr(record)


def test_json_and_back():
    record = MyRecord("layer", 2, largest_mean=0.5, error_signal=math.inf)
    stored = record.to_dict()
    assert json.loads(json.dumps(stored)) == {
        "name": "layer",
        "units": 2,
        "largest_mean": 0.5,
        "error_signal": None,
        "nonfinite": False,
    }
    restored = MyRecord.from_dict({**stored, "of another version": 1.0})
    assert restored.largest_mean == 0.5
    assert math.isnan(restored.error_signal)
    assert math.isnan(MyRecord.from_dict({"name": "older"}).largest_mean)


def test_what_was_stored_before_measures_had_a_decorator_loads():
    old = {
        "name": "net.1", "function": "tanh", "order": 2, "gate": False, "units": 3, "patterns": 8, "mean": 0.1,
        "std": 1.0, "linearity": 0.9, "linear_share": 0.0, "saturation": 0.1, "activity": None, "dead_share": None,
        "transmission": 0.5, "mean_energy": 0.2, "error_signal": 1e-3, "nonfinite": False, "histogram": [0.5, 0.5],
    }  # fmt: skip
    record = ActivationRecord.from_dict(old)
    new = {"awake": "", "centred": []}
    assert record.to_dict() == old | dict.fromkeys(("input_variation", "variation", "resolution")) | new
    assert record.histogram == (0.5, 0.5)


def test_every_measure_says_what_it_is():
    for kind in (ActivationRecord, WeightedRecord, ParameterRecord):
        for name, found in kind.MEASURES.items():
            assert found.__doc__, name
            assert bool(found.heading) == bool(found.width)
            assert bool(found.meaning) >= bool(found.heading)
            assert bool(found.reading) <= bool(found.meaning)


def test_one_place_adds_a_measure(monkeypatch):
    """It is computed, stored, shown and logged."""

    @dataclasses.dataclass(frozen=True)
    class Extended(ActivationRecord):
        @measure("median", 7, "number", "median over units of E a", needed=7, monitor="activations")
        @staticmethod
        def median(sums: ActivationSums) -> float:
            """Median over units of E a."""
            return float(np.median(sums.joint.mean_a))

    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    with probe(net) as p:
        net(torch.randn(16, 3))
    (seen,) = p.snapshot().activations
    record = Extended.of(seen.name, seen.function, 1, False, seen.sums, None)
    assert record.median == np.median(seen.sums.joint.mean_a)
    assert record.measures()["median"] == record.logged("activations")["median"] == record.to_dict()["median"]
    assert record.linearity == seen.linearity
    assert list(layers.columns_of([Extended, ParameterRecord]))[-2:] == ["median", "update_ratio"]


def test_numbers_of_every_kind_become_json():
    values = {"a": (1, np.float32(0.5), torch.tensor([1.0, math.nan])), 2: {None}, "x": np.inf, "p": object}
    assert json.loads(json.dumps(to_json(values))) == {
        "a": [1, 0.5, [1.0, None]],
        "2": [None],
        "x": None,
        "p": str(object),
    }
