import math
import re

import pytest

from lightning_tricks.report.html.chart import Axes, HorizontalLine, Mark, Series, chart, even, table


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
    shown = chart(
        [Series("loss", [0, 10], [1.0, 2.0])], "the loss", [HorizontalLine("a guess", 2.3)], [Mark("1", 5, "a fault")]
    )
    assert "a guess: 2.30" in shown
    assert 'title="step 5: a fault"' in shown
    assert 'role="img"' in shown
    assert 'aria-label="the loss"' in shown


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [-1.0, -1.0], [1e30, 1e-30], [5e-324, 1.0], [1e308, -1e308]])
def test_odd_numbers_are_drawn(values):
    assert "nan" not in chart([Series("loss", range(len(values)), values)], "x")


def test_heights_are_named_on_the_right_where_they_are_in_the_picture():
    shown = chart(
        [Series("loss", [0, 10], [0.0, 2.0])],
        "the loss",
        right=lambda *ends: [HorizontalLine("50%", 1.0), HorizontalLine("far", 9.0)],
    )
    (top,) = re.findall(r'<span style="top:([\d.]+)%">50%</span>', shown)
    assert float(top) == pytest.approx(50)
    assert "far" not in shown


def test_axes_have_their_names_and_even_numbers():
    shown = chart(
        [Series("loss", [0, 120], [2.3, 1.5])],
        "x",
        right=lambda *ends: [HorizontalLine("0%", 2.0)],
        axes=Axes("loss, mse", right="share"),
    )
    assert re.findall(r"<span>([^<]*)</span>", shown.partition('class="titles"')[2])[:2] == ["loss, mse", "share"]
    assert ">optimiser step</div>" in shown
    heights = re.findall(
        r'<span style="top:[^"]*">([^<]*)</span>', shown.partition("heights")[2].partition("</div>")[0]
    )
    assert len(heights) >= 4
    assert {len(height) for height in heights} == {3}  # 1.6 and 2.0, not 2
    steps = re.findall(r'<span style="left:[^"]*">(\d+)</span>', shown)
    assert len(steps) >= 5


def test_a_few_decades_have_more_than_their_powers():
    shown = chart([Series("loss", [0, 1], [2.3, 0.15])], "x", axes=Axes("loss"))
    heights = re.findall(r'<span style="top:[^"]*">([^<]*)</span>', shown)
    assert heights == ["0.2", "0.5", "1", "2"]
    assert "loss, logarithmic" in shown


def test_a_level_makes_room_for_itself_unless_it_is_at_minus_infinity():
    at = r'class="level" vector-effect[^>]*d="M0 ([\d.]+)H|d="M0 ([\d.]+)H[^>]*class="level"'
    even_axis = chart([Series("loss", [0, 1], [2.3, 1.5])], "x", [HorizontalLine("the floor", 0.0)])
    (found,) = re.findall(at, even_axis)
    assert 270 < float("".join(found)) < 300
    logs = chart([Series("loss", [0, 1], [2.3, 1e-3])], "x", [HorizontalLine("the floor", 0.0)])
    assert re.findall(at, logs) == []
    assert "the floor: 0 (below the picture)" in logs


def test_shares_are_drawn_from_none_to_all():
    shown = chart([Series("unchanged", [0, 60], [0.0, 0.0])], "x", axes=Axes("share of the way", percent=True))
    heights = re.findall(r'<span style="top:[^"]*">([^<]*)</span>', shown)
    assert heights[0] == "0%"
    assert heights[-1] == "100%"


def test_the_numbers_as_a_table():
    shown = table(
        [Series("a", range(100), [k / 100 for k in range(100)]), Series("b", [0, 99], [-1e-4, 1.0])], "x", True
    )
    rows = re.findall(r'<tr><th scope="row">(\d+)</th><td>([^<]*)</td><td>([^<]*)</td>', shown)
    assert (rows[0], rows[-1]) == (("0", "0%", "0%"), ("99", "99%", "100%"))
    assert len(rows) <= 12
    assert rows[3][2] == ""


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.02, 0.37), (1e-9, 3e-9), (-5.0, 99999.0)])
def test_even_numbers_are_about_as_many_as_asked_for(low, high):
    for count in (3, 5, 8):
        found = even(low, high, count)
        assert count / 2.5 <= len(found) <= count + 2
        assert low - 1e-12 <= found[0] <= found[-1] <= high + 1e-12


def test_the_names_of_lines_that_are_near_do_not_cover_each_other():
    levels = [HorizontalLine("a guess", 2.3), HorizontalLine("the floor", 0.0), HorizontalLine("reachable", 2.25)]
    shown = chart([Series("loss", [0, 1], [2.3, 2.2])], "x", levels)
    names = re.findall(
        r'<span style="top:[\d.]+%"( class="below")?>([^<]+)</span>', shown.partition('class="levels"')[2]
    )
    assert names[:3] == [("", "a guess"), ("", "the floor"), (' class="below"', "reachable")]


def test_there_is_no_half_step():
    """Of few steps each has its number, and nothing between two has one."""
    shown = chart([Series("loss", range(8), [1.0] * 8)], "a loss")
    below = shown.partition('class="steps"')[2].partition("</div>")[0]
    assert re.findall(">([^<]*)</span>", below) == [str(step) for step in range(8)]
