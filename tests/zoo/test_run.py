"""A model that takes too long or too much memory is ended, and its line says so."""

import time

import pytest
from torch import nn

from tests.zoo import run, table
from tests.zoo.harness import Row
from tests.zoo.models.entry import Entry, vectors


def _slow():
    time.sleep(30)
    return nn.Linear(3, 2)


ENTRY = Entry("slow", "made up", _slow, vectors(4, 3))


@pytest.mark.parametrize(("limit", "spare", "said"), [(0.5, 0.0, "takes over 0 s"), (20.0, 1e6, "needs over ")])
def test_a_limit_ends_a_model_and_its_line_says_so(limit, spare, said, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "SPARE", spare)
    run.run([ENTRY], tmp_path / "store.jsonl", limit)
    (row,) = run.load(tmp_path / "store.jsonl")
    assert row.not_run.startswith(said)
    text = table.markdown([row, Row("made up", "quick")], {}, [])
    assert "| made up | 2 | 1 | 1 |" in text
    assert f"| slow |  |  |  |  |  | not run: {row.not_run} |" in text
    assert f"- slow (made up): not run, {row.not_run}" in text
    assert "All that ran are green" in text
