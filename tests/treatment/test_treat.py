"""treat changes a model only by what is proven, leaves everything else, and takes it back bit for bit."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch import nn

import lightning_tricks as lt
from lightning_tricks.treatment import treat
from tests.treatment.trained import (
    TREAT,
    Lit,
    Whole,
    accuracy,
    constant,
    fit,
    loader,
    mlp,
    only,
    same,
)

pytestmark = pytest.mark.usefixtures("usual_trials")


@pytest.mark.filterwarnings("ignore")
def test_a_cured_module_comes_back_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "initialize", "leaky_relu")
    module = Lit(constant(mlp(nn.Tanh)))
    data = loader()
    whole = Whole(module, data)
    treatment = treat(module, None, data)
    assert [remedy.action for remedy in treatment.applied] == ["initialize"]
    assert treatment.remedies[0].gain > 0.5
    assert "initialize *" in str(treatment)
    assert not same(whole.before[2], whole.now()[2])
    assert same(whole.before[4:], whole.now()[4:])
    treatment.undo()
    whole.check()
    treatment.undo()  # twice is once
    whole.check()


@pytest.mark.filterwarnings("ignore")
def test_after_a_structural_change_a_fit_trains_the_new_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Lit(mlp(nn.Sigmoid, 6), lr=0.02)
    only(monkeypatch, "insert_batch_norm")
    whole = Whole(module)
    treatment = treat(module, None, loader())
    assert [remedy.action for remedy in treatment.applied] == ["insert_batch_norm"]
    norm = module.net[0].batch_norm
    before = norm.weight.detach().clone()
    fit(module, epochs=3)
    assert not torch.equal(norm.weight, before)
    assert accuracy(module) > 0.9
    treatment.undo()
    assert same(whole.before[2], whole.now()[2])
    assert [type(layer).__name__ for layer in module.net[:2]] == ["Linear", "Sigmoid"]


class Built(Lit):
    """Has its optimiser from the start."""

    def __init__(self, net: nn.Module, lr: float = 0.01) -> None:
        super().__init__(net, lr)
        self.adam = torch.optim.Adam(self.parameters(), lr)

    def configure_optimizers(self) -> Any:
        return self.adam


@pytest.mark.filterwarnings("ignore")
def test_an_optimizer_that_was_there_before_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "insert_batch_norm")
    module = Built(mlp(nn.Sigmoid, 6), lr=0.02)
    held = [id(p) for p in module.adam.param_groups[0]["params"]]
    treatment = treat(module, None, loader())
    assert [remedy.action for remedy in treatment.applied] == ["insert_batch_norm"]
    now = {id(p) for p in module.adam.param_groups[0]["params"]}
    assert now == set(map(id, module.parameters()))
    norm = module.net[0].batch_norm
    before = norm.weight.detach().clone()
    fit(module, epochs=1)
    assert not torch.equal(norm.weight, before)
    treatment.undo()
    assert [id(p) for p in module.adam.param_groups[0]["params"]] == held
    assert not module.adam.state


class TreatsItself(L.Callback):
    def __init__(self) -> None:
        self.treatment: Any = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2 and self.treatment is None:
            self.treatment = treat(pl_module, None, loader())


@pytest.mark.filterwarnings("ignore")
def test_in_the_middle_of_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "insert_batch_norm")
    module, callback = Lit(mlp(nn.Sigmoid, 6), lr=0.02), TreatsItself()
    fit(module, 2, callback)
    assert [remedy.action for remedy in callback.treatment.applied] == ["insert_batch_norm"]
    assert float((module.net[0].batch_norm.weight - 1).abs().max()) > 0.01


@pytest.mark.filterwarnings("ignore")
def test_nothing_gained_is_nothing_changed() -> None:
    module = Lit(mlp())
    data = loader()
    whole = Whole(module, data)
    treatment = treat(module, None, data)
    whole.check()
    assert treatment.applied == treatment.remedies == []
    assert str(treatment).startswith("Nothing gained: nothing changed")


@pytest.mark.filterwarnings("ignore")
def test_what_is_not_in_the_model_is_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "raise_learning_rate")
    module = Lit(mlp(), lr=1e-6)
    whole = Whole(module)
    treatment = treat(module, None, loader())
    whole.check()
    assert treatment.applied == []
    assert 1e-4 <= treatment.advice["lr"] <= 0.3
    assert treatment.gains["lr"] > 0.5


@pytest.mark.filterwarnings("ignore")
def test_a_dry_run_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "initialize")
    module = Lit(constant(mlp(nn.Tanh)))
    whole = Whole(module)
    treatment = treat(module, None, loader(), dry_run=True)
    whole.check()
    assert treatment.applied == []
    assert [remedy.action for remedy in treatment.remedies] == ["initialize"]
    assert "would be" in str(treatment)


@pytest.mark.filterwarnings("ignore")
def test_a_treatment_that_fails_midway_leaves_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "initialize")
    module = Lit(constant(mlp(nn.Tanh)))
    whole = Whole(module)
    monkeypatch.setattr(TREAT, "hand_over", fails)
    module.adam = torch.optim.Adam(module.parameters())
    with pytest.raises(RuntimeError, match="on purpose"):
        treat(module, None, loader())
    del module.adam
    whole.check()


def fails(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("on purpose")


@pytest.mark.filterwarnings("ignore")
def test_ruins_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    module = Lit(mlp(), lr=0.003)
    fit(module, 1)
    with torch.no_grad():
        module.net[0].weight.fill_(float("nan"))
    treatment = treat(module, None, loader())
    assert treatment.applied[0].action == "initialize"
    assert all(p.isfinite().all() for p in module.parameters())
    treatment.undo()
    assert module.net[0].weight.isnan().all()


def test_what_cannot_be_judged_says_so() -> None:
    module = Lit(mlp())
    module.automatic_optimization = False
    treatment = treat(module, None, loader())
    assert "not judged: it optimises by hand" in str(treatment)


def test_time_and_ctrl_c_end_it() -> None:
    module = Lit(constant(mlp(nn.Tanh)))
    whole = Whole(module)
    assert treat(module, None, loader(), max_seconds=1e-9).note == "cut short"
    seen: list[str] = []

    def press(text: str) -> None:
        seen.append(text)
        if len(seen) == 5:
            raise KeyboardInterrupt

    treatment = treat(module, None, loader(), notice=press)
    assert treatment.note == "cut short"
    assert len(treatment.trials) >= 2
    whole.check()


def test_it_is_public() -> None:
    assert lt.treat is treat


@pytest.mark.filterwarnings("ignore")
def test_a_checkup_may_end_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "initialize")
    module = Lit(constant(mlp(nn.Tanh)))
    whole = Whole(module)
    diagnosis = lt.checkup(module, loader(), treat=True, experiments="none", progress=False)
    assert [remedy.action for remedy in diagnosis.treatment.applied] == ["initialize"]
    assert "changed: start every layer" in str(diagnosis)
    diagnosis.treatment.undo()
    whole.check()
