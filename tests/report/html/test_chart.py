import math
import re

import pytest

from lightning_tricks.report.html.chart import Level, Mark, Series, chart


def points(shown, look):
    (path,) = [
        re.search(r' d="(.*?)"', f" {attributes}")[1]
        for attributes in re.findall("<path ([^>]*)>", shown)
        if f'class="{look}"' in attributes
    ]
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-.\d]+) ([-.\d]+)", path)]


def test_a_line_goes_through_its_numbers():
    found = points(chart([Series("loss", [0, 5, 10], [1.0, 2.0, 1.5])], "the loss"), "l0")
    xs, ys = zip(*found, strict=True)
    assert xs == pytest.approx([0, 500, 1000])
    assert (ys[0] - ys[1]) / (ys[2] - ys[1]) == pytest.approx(2, rel=0.01)  # higher numbers are further up
    assert ys[1] < ys[2] < ys[0]


def test_many_decades_have_a_log_axis():
    found = points(chart([Series("loss", [0, 1, 2], [1.0, 1e-2, 1e-4])], "the loss"), "l0")
    heights = [y for _, y in found]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)


def test_a_gap_is_a_gap_and_nothing_is_said():
    shown = chart([Series("loss", [0, 1, 2, 3], [1.0, math.nan, 2.0, 3.0])], "the loss")
    (path,) = re.findall(r'd="(M[^"]*)"[^>]*class="l0"|class="l0"[^>]*d="(M[^"]*)"', shown)
    assert "".join(path).count("M") == 2
    assert "No number is known" in chart([Series("loss", [0], [math.nan])], "the loss")


def test_of_a_long_run_no_peak_is_lost():
    y = [1.0] * 10_000
    y[4321] = 9.0
    found = points(chart([Series("loss", range(10_000), y)], "the loss"), "l0")
    assert len(found) <= 402
    assert min(height for _, height in found) < 30
    assert min(found, key=lambda point: point[1])[0] == pytest.approx(432, abs=1)


def test_levels_and_marks_are_named():
    shown = chart([Series("loss", [0, 10], [1.0, 2.0])], "the loss", [Level("a guess", 2.3)], [Mark("1", 5, "a fault")])
    assert "a guess: 2.30" in shown
    assert 'title="step 5: a fault"' in shown
    assert 'role="img"' in shown
    assert 'aria-label="the loss"' in shown


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [-1.0, -1.0], [1e30, 1e-30], [5e-324, 1.0], [1e308, -1e308]])
def test_odd_numbers_are_drawn(values):
    assert "nan" not in chart([Series("loss", range(len(values)), values)], "x")


def test_heights_are_named_on_the_right_where_they_are_in_the_picture():
    shown = chart([Series("loss", [0, 10], [0.0, 2.0])], "the loss", right=[Level("50%", 1.0), Level("far", 9.0)])
    (top,) = re.findall(r'<span style="top:([\d.]+)%">50%</span>', shown)
    assert float(top) == pytest.approx(50)
    assert "far" not in shown
