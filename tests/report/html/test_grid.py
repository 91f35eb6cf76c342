import dataclasses
import math

import numpy as np

from lightning_tricks.report.html.grid import MEASURES, grid_of
from lightning_tricks.report.layers import layer_rows
from tests.report.html.conftest import long_diagnosis


def test_the_numbers_are_those_of_the_table(rectifiers):
    grid = grid_of(rectifiers)
    assert grid.steps == [0, 1, 2, 4, 8]
    assert grid.labels == ["0, 1", "2, 3", "4, 5", "6"]
    for i, snapshot in enumerate(rectifiers):
        for j, row in enumerate(layer_rows(snapshot)):
            for name, value in row.values.items():
                assert grid.values[name][j][i] == value
    assert math.isnan(grid.values["linearity"][3][0])
    assert grid.thinned == ""


def test_a_layer_with_nan_keeps_its_row(spoilt):
    grid = grid_of(spoilt)
    assert grid.labels == ["0, 1", "2, 3", "4, 5", "6"]
    assert {(0, 1), (3, 2)} <= grid.broken
    assert not any(i == 0 for _, i in grid.broken)


def test_constant_layers_are_told(rectifiers):
    dead = dataclasses.replace(
        rectifiers[0],
        activations=tuple(
            dataclasses.replace(r, linearity=math.nan, dead_share=1.0) if r.name == "3" else r
            for r in rectifiers[0].activations
        ),
    )
    assert grid_of([dead]).constant == {(1, 0)}


def test_long_histories_are_thinned_and_it_is_said():
    diagnosis = long_diagnosis(300, 256)
    grid = grid_of(diagnosis.history, steps=[3, 101], faulty=["encoder.layer.77.act"])
    assert len(grid.layers) == 300
    assert 20 <= len(grid.steps) <= 48
    assert len(grid.steps) * 300 * MEASURES <= 110_000
    assert {0, 3, 101, 255} <= set(grid.steps)
    assert f"{len(grid.steps)} of 256 probed steps" in grid.thinned
    assert " rows" not in grid.thinned


def test_steps_are_shown_in_the_order_in_which_they_are_asked_for():
    """Of more steps than there is room for those of the causes, which are named first, wherever they are."""
    history = long_diagnosis(2, 200).history
    asked = [150, *range(1, 100)]
    shown = grid_of(history, steps=asked).steps
    assert {0, 150, 199, *range(1, 40)} <= set(shown)
    assert len(shown) <= 48


def test_of_very_many_layers_those_with_a_finding_stay():
    diagnosis = long_diagnosis(1000, 3)
    grid = grid_of(diagnosis.history, faulty=["encoder.layer.77.act"])
    assert len(grid.layers) <= 400
    assert any("encoder.layer.77.act" in row.names for row in grid.layers)
    assert [grid.layers[0].names[0], grid.layers[-1].names[0]] == ["encoder.layer.0.fc", "encoder.layer.999.fc"]
    assert f"{len(grid.layers)} of 1000 rows" in grid.thinned
    assert np.shape(grid.values["std"]) == (len(grid.layers), 3)


def test_only_the_layers_asked_for(rectifiers):
    assert grid_of(rectifiers, ["2", "3"]).labels == ["2, 3"]
    assert grid_of([]).labels == []
