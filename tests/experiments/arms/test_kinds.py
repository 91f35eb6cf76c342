"""What is planted is found by the change that takes it away."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from lightning_tricks.experiments.arms import ARMS
from lightning_tricks.experiments.arms import trials as trials_module
from lightning_tricks.experiments.arms.prepared import prepared
from lightning_tricks.experiments.training import Training
from lightning_tricks.experiments.training.deadline import Deadline
from tests.experiments.arms import planted
from tests.experiments.arms.planted import PLANTED, Lit, X, loader, mlp, run, transformer

pytestmark = [pytest.mark.usefixtures("usual_trials"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def _shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials_module, "SORT", 20)
    monkeypatch.setattr(trials_module, "DECLARE", 60)


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_undone(name: str) -> None:
    arm = next(arm for arm in ARMS if arm.name == name)
    _, trial = run(name, arm)
    assert not trial.reason
    assert trial.proven, f"{trial.base:.2f} -> {trial.share:.2f}"


def test_all_layers_of_a_transformer_are_told_which_axis_is_the_batchs() -> None:
    arm = next(arm for arm in ARMS if arm.name == "batch_first")
    net = transformer()
    assert arm.on_model is not None
    setting = prepared(Training.of(Lit(mlp())), loader(), False, Deadline(60)).setting
    with torch.no_grad():
        assert not torch.allclose(net(X[:8])[:4], net(X[:4]), atol=1e-5)
        arm.on_model(net, setting)
        assert torch.allclose(net(X[:8])[:4], net(X[:4]), atol=1e-5)
        arm.on_model(net, setting)  # where all say so, the other way round
        assert not torch.allclose(net(X[:8])[:4], net(X[:4]), atol=1e-5)


def test_the_line_of_a_function_is_named() -> None:
    _, trial = run("no_last_function", next(arm for arm in ARMS if arm.name == "no_last_function"))
    assert trial.place is not None
    assert re.fullmatch(r"softmax in planted\.py:\d+", trial.place)
    lines = Path(planted.__file__).read_text().splitlines()
    assert "softmax(dim=-1)" in lines[int(trial.place.rpartition(":")[2]) - 1]
