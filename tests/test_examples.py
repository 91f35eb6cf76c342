"""Every example runs, says what it promises and writes its pictures."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

import lightning_tricks as lt

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
        ["--depth", "4", "--epochs", "4", "--seconds", "300"],
        ["detect: Sick", "try and treat: From", "proven on two seeds", "train: accuracy"],
    ),
    "07_regularization.py": (["--fast"], ["half of the units deleted, with dropout", "Monte Carlo"]),
    "08_choice_of_units.py": (["--fast"], ["shifted ReLU with batch norm", "at variance 2"]),
    "09_lecture_quiz.py": (["--fast"], ["TRUE", "FALSE", "11. a non-zero update step of SELU shifts the mean"]),
    "10_your_model.py": (["--fast"], ["=== resnet18: validation accuracy", "=== transformer: validation accuracy"]),
    "11_any_loop.py": (["--steps", "40"], ["plain: Sick: ", "fabric: Sick: ", "Healthy"]),
}


COMMAND_LINE = "12_cli.py"


def test_every_example_is_run() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("[0-9]*.py")) == sorted([*FAST, COMMAND_LINE])


ON = [
    "auto",
    pytest.param(
        "gpu",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
        ],
    ),
]


@pytest.mark.filterwarnings("ignore")  # a script shows Lightning's advice to its reader
@pytest.mark.usefixtures("usual_trials")
@pytest.mark.parametrize("accelerator", ON)
@pytest.mark.parametrize("name", FAST)
def test_example(
    name: str, accelerator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, said = FAST[name]
    arguments = [*arguments, "--accelerator", accelerator, "--output", str(tmp_path / "pictures")]
    runpy.run_path(str(EXAMPLES / name))["main"](arguments)
    printed = " ".join(capsys.readouterr().out.split())
    assert [text for text in said if text not in printed] == []
    assert list((tmp_path / "pictures").rglob("*.png"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FAST)
def test_an_example_takes_an_accelerator(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        runpy.run_path(str(EXAMPLES / name))["main"](["--help"])
    assert "--accelerator ACCELERATOR auto, cpu or gpu" in " ".join(capsys.readouterr().out.split())


@pytest.mark.filterwarnings("ignore")
def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A training described in YAML; its checkpoint needs nothing but itself."""
    pytest.importorskip("jsonargparse", reason="jsonargparse comes with the extra 'tests'")
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(EXAMPLES / COMMAND_LINE))
    more = ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--trainer.logger", "false"]
    more += ["--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", str(tmp_path)]
    cli = example["main"](["fit", "--config", str(EXAMPLES / "12_cli.yaml"), *more])
    assert "Healthy" in capsys.readouterr().out
    assert float(cli.trainer.callback_metrics["val_accuracy"]) > 0.8
    cli.trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = lt.Classifier.load_from_checkpoint(tmp_path / "model.ckpt")
    x = cli.datamodule.valid.tensors[0]
    assert torch.equal(loaded.predict(x), cli.model.predict(x))


def test_pictures_of_the_readme_exist() -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    pictures = [part.split(")")[0] for part in readme.split("](")[1:]]
    local = [picture for picture in pictures if not picture.startswith(("http", "#"))]
    assert any(picture.endswith(".png") for picture in local)
    assert [picture for picture in local if not (EXAMPLES.parent / picture).exists()] == []
