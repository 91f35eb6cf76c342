"""The page of two runs tells what the table tells, and each layer and step as a number."""

from __future__ import annotations

import re

import pytest

import lightning_tricks as lt
from lightning_tricks.commands import main
from tests.comparison.runs import run, trained


def page(found, tmp_path):
    return re.sub(r"\s+", " ", found.to_html(tmp_path / "page.html").read_text())


def test_where_they_part_is_what_the_table_says(tmp_path):
    found = lt.compare(run(), run(signal=lambda step: 0.3 if step >= 40 else 0.01), names=("old", "new"))
    shown = page(found, tmp_path)
    assert "They part" in shown
    assert "New parts from old at step 40 in one: error signal 30.0 x." in shown
    assert '<th scope="row">error signal</th><td>step 40</td><td>one</td>' in shown
    assert all(note in shown for note in found.notes())


def test_each_layer_and_step_is_a_number(tmp_path):
    """Thirty times the error signal from step 40 on, in the table of its picture; 1 before, and of what is alike."""
    shown = page(lt.compare(run(), run(signal=lambda step: 0.3 if step >= 40 else 0.01)), tmp_path)
    figure = shown[shown.index("<h3>error signal</h3>") :]
    table = figure[figure.index("<table>") : figure.index("</table>")]
    steps = [int(step) for step in re.findall(r"<th scope=col>(\d+)", table)]
    (row,) = re.findall(r"<th scope=row>one(.*?)(?=<tr|$)", table)
    cells = re.findall(r"<td>([^<]*)", row)
    assert cells == ["30.0 x" if step >= 40 else "1.00 x" for step in steps]
    assert 'title="here they part"' in figure


def test_two_seeds_of_one_training_do_not_part(tmp_path):
    shown = page(lt.compare(trained(0), trained(1)), tmp_path)
    assert "They do not part" in shown
    assert "loss of run A" in shown
    assert shown.count("They do not part in it.") >= 6


@pytest.mark.parametrize(
    "other", [run(range(500, 580, 10)), [lt.Snapshot(step, 1.0) for step in range(0, 80, 10)]], ids=["steps", "layers"]
)
def test_without_a_step_or_a_layer_in_common_there_is_a_page_too(other, tmp_path):
    assert "Not compared" in page(lt.compare(run(), other), tmp_path)


def test_the_command_writes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        trained(seed).to_csv(tmp_path / f"{seed}.csv")
    assert main(["compare", "0.csv", "1.csv", "--html", "page.html"]) == 0
    assert "does not part" in (tmp_path / "page.html").read_text()
