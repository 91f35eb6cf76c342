"""Layers that are nearly linear are one thing, a network that is another."""

from __future__ import annotations

import pytest

from lightning_tricks.diagnosis.rules.linearity import find_linearity
from lightning_tricks.probes import ActivationRecord, Snapshot, WeightedRecord

STEPS = (0, 1, 2, 16, 50, 100)


def history(second: list[float], first: float) -> list[Snapshot]:
    """Of two hidden layers, by their linearity."""
    return [
        Snapshot(
            step,
            weighted=tuple(WeightedRecord(f"w{k}", order=2 * k) for k in range(3)),
            activations=tuple(
                ActivationRecord(f"a{k}", "tanh", 2 * k + 1, units=8, patterns=64, linearity=value, std=0.05)
                for k, value in enumerate((first, each))
            ),
        )
        for step, each in zip(STEPS, second, strict=True)
    ]


@pytest.mark.parametrize(
    ("first", "second", "alarms"),
    [
        (0.7, [0.9995] * 6, 0),
        (0.9995, [0.9995] * 6, 1),
        (0.7, [0.99995] * 6, 1),
        (0.7, [*[0.99995] * 4, 0.99989, 0.99991], 0),
    ],
    ids=["half of the network nearly", "all of it nearly", "half of it wholly", "half of it wholly, and mending"],
)
def test_one_layer_of_two_has_to_be_straight_for_good(first: float, second: list[float], alarms: int) -> None:
    assert len([found for found in find_linearity(history(second, first)) if found.rank]) == alarms
