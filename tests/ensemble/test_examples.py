"""The examples run, small, and leave their pictures."""

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
SMALL = {
    "04_bagging_perceptrons": ["--members", "20", "--epochs", "20", "--steps", "30"],
    "05_bagging_deep_networks": ["--members", "4", "--epochs", "3"],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SMALL)
def test_example(name, tmp_path, capsys):
    runpy.run_path(str(FOLDER / f"{name}.py"))["main"]([*SMALL[name], "--output", str(tmp_path)])
    assert "out of bag" in capsys.readouterr().out
    (picture,) = tmp_path.glob("*.png")
    assert picture.stat().st_size > 10_000
