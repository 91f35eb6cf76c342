import math
import re

import pytest

from lightning_tricks.report.html.grid import Grid, grid_of
from lightning_tricks.report.html.heat import Cells, Scale, picture, table
from lightning_tricks.report.layers import Row


@pytest.mark.parametrize(
    ("kind", "levels"),
    [("s", ["s0", "s1", "s2", "s2"]), ("r", ["s2", "s1", "s0", "s0"]), ("d", ["d0", "d1", "d2", "d2"])],
)
def test_numbers_have_the_colour_of_their_level(kind, levels):
    scale = Scale((0.1, 0.5), kind)
    assert [scale.level(value) for value in (0.0, 0.3, 0.5, 9.0)] == levels


def drawn_cells(shown):
    """The class of every cell that the strokes of a picture cover."""
    found = {}
    for attributes in re.findall(r"<path ([^>]*)>", shown):
        level, path = re.search('class="(.*?)"', attributes)[1], re.search(' d="(.*?)"', f" {attributes}")[1]
        for x, y, length in re.findall(r"M(\d+) (\d+)\.5h(\d+)", path):
            found |= {(int(y), int(x) + k): level for k in range(int(length))}
    return found


def cells(history, values, constant=False):
    return Cells(grid_of(history), values, Scale((0.1, 0.5)), "{:.2f}".format, constant)


def test_every_cell_is_drawn_in_its_colour_and_written_in_the_table(rectifiers):
    values = [[0.0, 0.0, 0.2, 0.2, 0.9], [0.6, math.nan, 0.6, 0.0, 0.0], [0.2] * 5, [math.nan] * 5]
    mine = cells(rectifiers, values)
    found = drawn_cells(picture(mine, "std", [1]))
    for j, row in enumerate(values):
        for i, value in enumerate(row):
            assert found.get((j, i), "") == ("" if math.isnan(value) else mine.scale.level(value))
    shown = table(mine, "std by layer")
    rows = re.findall(r"<tr><th scope=row>([^<]*)((?:<td>[^<]*)*)", shown)
    assert [name for name, _ in rows] == ["0, 1", "2, 3", "4, 5", "6"]
    assert rows[0][1] == "<td>0.00<td>0.00<td>0.20<td>0.20<td>0.90"
    assert rows[3][1] == "<td>" * 5
    assert "<caption>std by layer</caption>" in shown


def test_nan_and_constant_have_words_and_the_fullest_colours(spoilt):
    values = [[0.0] + [math.nan] * 2] * 4
    shown = cells(spoilt, values)
    assert drawn_cells(picture(shown, "std", []))[0, 1] == "nan"
    assert "<td>0.00<td>NaN<td>NaN" in table(shown, "x")


def test_layers_with_a_finding_have_a_sign_and_their_name(rectifiers):
    shown = picture(cells(rectifiers, [[0.2] * 5] * 4), "std", [2])
    assert shown.count('title="a finding names this layer"') == 1
    assert re.findall(r'<span [^>]*class="sick">([^<]*)', shown) == ["4, 5"]


def test_it_says_what_it_shows(rectifiers):
    label = re.search('aria-label="(.*?)"', picture(cells(rectifiers, [[0.2, 0.7, 0.2, 0.2, 0.2]] * 4), "std", []))[1]
    assert label == "std: 4 rows by 5 probed steps, from 0.2 to 0.7; the same numbers are in the table below"


def test_the_last_of_many_steps_ends_with_the_picture():
    """A number that is broader than its column would stand beyond the page."""
    few, many = (shown_steps(count) for count in (3, 30))
    assert all("left:" in attributes for attributes, _ in few)
    assert [attributes for attributes, _ in many if "left:" not in attributes] == [' class="end"']
    assert many[-1] == (' class="end"', "10029")


def shown_steps(count):
    rows = [Row(("0",), "relu", {})]
    steps = list(range(10_000, 10_000 + count))
    grid = Grid(rows, ["0"], "", steps, {}, frozenset(), frozenset(), count, 1)
    shown = picture(Cells(grid, [[0.5] * count], Scale((0.1, 0.9)), str, False), "x", [])
    return re.findall(r"<span([^>]*)>(\d+)</span>", shown.partition('class="steps"')[2])
