"""Every example runs, says what it promises and writes its pictures."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
FAST: dict[str, tuple[list[str], list[str]]] = {
    "01_diagnose_a_deep_network.py": (
        ["--epochs", "5"],
        ["Sick: ", "Healthy: ", "validation accuracy", "sick healthy"],
    ),
    "02_self_normalizing_networks.py": (["--fast"], ["SELU"]),
    "03_batch_normalization.py": (["--fast"], ["batch"]),
    "04_bagging_perceptrons.py": (["--members", "20", "--epochs", "20", "--steps", "30"], ["out of bag"]),
    "05_bagging_deep_networks.py": (["--members", "4", "--epochs", "3"], ["out of bag"]),
    "06_cure.py": (
        ["--depth", "4", "--epochs", "4"],
        ["detect: Sick", "try and treat: From", "proven on two seeds", "train: accuracy"],
    ),
    "11_any_loop.py": (["--steps", "40"], ["plain: Sick: ", "fabric: Sick: ", "Healthy"]),
}


def test_every_example_is_run() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("[0-9]*.py")) == sorted(FAST)


@pytest.mark.filterwarnings("ignore")  # a script shows Lightning's advice to its reader
@pytest.mark.usefixtures("usual_trials")
@pytest.mark.parametrize("name", FAST)
def test_example(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, said = FAST[name]
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / name))["main"]([*arguments, "--output", str(tmp_path / "pictures")])
    printed = " ".join(capsys.readouterr().out.split())
    assert [text for text in said if text not in printed] == []
    assert list((tmp_path / "pictures").rglob("*.png"))


def test_pictures_of_the_readme_exist() -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    pictures = [part.split(")")[0] for part in readme.split("](")[1:]]
    local = [picture for picture in pictures if not picture.startswith("http")]
    assert any(picture.endswith(".png") for picture in local)
    assert [picture for picture in local if not (EXAMPLES.parent / picture).exists()] == []
