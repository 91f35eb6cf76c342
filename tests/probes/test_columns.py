"""Columns are read as they were written."""

import math

import numpy as np
import pytest

from lightning_tricks.probes.columns import ColumnReader, ColumnWriter


def through(values, **options):
    writer = ColumnWriter(**options)
    described = writer.column(values)
    return ColumnReader(writer.data()).column(described), len(writer.data())


@pytest.mark.parametrize(
    "values",
    [
        [], [1.0], [0.5, 0.25, -0.0], [1, 2, 70_000, -3, 2**40], [True, False, True], ["relu", "tanh", "relu"],
        [None, "a", None], [None, 0.5, 2.0], [(), (1, 2), (3,)], [(0.5,), (), (0.25, 1.0)], [("a", "b"), ("a",)],
        ["00ff" * 5, "", "0a" * 9], ["0f0" * 5, "ab" * 9], [{"a": [1, None]}, {}], [None, None], [1, 0.5, "a", None],
    ],
    ids=str,
)  # fmt: skip
def test_values_come_back_with_their_types(values):
    found, _ = through(values)
    wanted = [list(value) if isinstance(value, tuple) else value for value in values]
    assert found == wanted
    assert list(map(type, found)) == list(map(type, wanted))


def test_what_is_no_number_stays_so_and_is_told_from_none():
    found, _ = through([math.nan, math.inf, -math.inf, 1.0])
    assert math.isnan(found[0])
    assert found[1:] == [math.inf, -math.inf, 1.0]
    found, _ = through([math.nan, None, 1.0])
    assert math.isnan(found[0])
    assert found[1:] == [None, 1.0]


def test_numbers_have_four_bytes_unless_they_need_eight():
    numbers = np.random.default_rng(0).normal(size=100).tolist()
    found, size = through(numbers)
    assert size == 400
    assert found == [float(np.float32(number)) for number in numbers]
    assert through(numbers, exact=True) == (numbers, 800)
    tiny = [1e-60, 1e60, 0.0]
    assert through(tiny)[0] == tiny
    assert through([0.5] * 100) == ([0.5] * 100, 0)
