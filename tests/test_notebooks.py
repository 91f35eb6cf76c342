"""Every notebook runs clean from its first cell to its last, and is stored without what it showed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
# What has to be among what it shows, and how many pictures.
NOTEBOOKS: dict[str, tuple[list[str], int]] = {
    "13_first_diagnosis.ipynb": (
        [
            "vanishing gradient at",
            "what to do: use self-normalising units",
            "Healthy: no warnings",
            "Cured parts from sick",
        ],
        1,
    ),
    "14_lecture_in_pictures.ipynb": (["MARGINAL", "linear", "units are dead at", "SELU", "batch norm"], 6),
}


def test_every_notebook_is_run() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.ipynb")) == sorted(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_nothing_that_was_shown_is_stored(name: str) -> None:
    book = json.loads((EXAMPLES / name).read_text())
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])


@pytest.mark.filterwarnings("ignore")  # of the kernel and its sockets
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs(name: str, tmp_path: Path) -> None:
    pytest.importorskip("ipykernel", reason="ipykernel comes with the extra 'tests'")
    nbclient = pytest.importorskip("nbclient", reason="nbconvert comes with the extra 'tests'")
    nbformat = pytest.importorskip("nbformat", reason="nbconvert comes with the extra 'tests'")
    book = nbformat.read(EXAMPLES / name, as_version=4)
    nbclient.NotebookClient(book, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [each for each in outputs if each.output_type == "error"] == []
    text = " ".join(" ".join(map(_text, outputs)).split())
    said, pictures = NOTEBOOKS[name]
    assert [each for each in said if each not in text] == []
    assert sum("image/png" in each.get("data", {}) for each in outputs) >= pictures
    if name.startswith("13"):
        _the_line_of_the_training(outputs)
        assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["comparison.html", "sick.html"]


def _the_line_of_the_training(outputs: list[Any]) -> None:
    """One, which at the end tells the last look."""
    lines = [each for each in outputs if "of the way from a guess" in _text(each)]
    assert len(lines) == 1
    assert re.search(r"Sick.*step 280", _text(lines[0]))


def _text(output: Any) -> str:
    data = output.get("data", {})
    return str(output.get("text", "")) + str(data.get("text/html", data.get("text/plain", "")))
