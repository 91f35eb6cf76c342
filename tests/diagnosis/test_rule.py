"""A rule of one's own is found, printed, folded, ignored and stored as those of the package are."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks.diagnosis.rule import KNOWN, RuleError

from .trainings import deep, digits, train


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    torch.manual_seed(0)
    known = dict(KNOWN)
    yield
    KNOWN.clear()
    KNOWN.update(known)


def coarse_input(**options: Any) -> lt.Rule:
    """The first layer reads few features: a cause of my own, about the data."""

    @lt.rule(
        "coarse_input",
        heading="coarse input",
        remedies=[lt.Remedy("finer_input", "take larger pictures")],
        **{"stage": "code", "brings_about": ["vanishing_gradient", "linearity"], **options},
    )
    def find_coarse_input(history: Sequence[lt.Snapshot]) -> list[lt.Finding]:
        """The input has few features."""
        first = history[-1].weighted[0]
        return [lt.Finding("coarse_input", first.name, "warning", history[0].step, {"features": first.fan_in})]

    return find_coarse_input


def test_it_folds_what_it_brings_about_under_it_and_prints() -> None:
    diagnosis = lt.diagnose(train(deep(nn.Sigmoid, 20), steps=40), rules=[coarse_input()])
    (top,) = diagnosis.findings
    assert (top.problem, [finding.problem for finding in top.consequences]) == (
        "coarse_input",
        ["vanishing_gradient", "linearity"],
    )
    text = str(diagnosis)
    assert "coarse input at layer 0" in text
    assert "features 64" in text
    assert "take larger pictures" in text
    assert diagnosis.verdict.startswith("Sick: the gradient vanishes because coarse input at layer 0")
    stored = json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))
    assert stored["findings"][0]["problem"] == "coarse_input"
    assert stored["findings"][0]["remedies"][0]["action"] == "finer_input"


@lt.rule("of_a_module", "end")
def find_of_a_module(history: Sequence[lt.Snapshot]) -> list[lt.Finding]:
    return []


def test_a_rule_goes_to_another_process_with_its_doctor() -> None:
    assert pickle.loads(pickle.dumps(find_of_a_module)) is find_of_a_module
    doctor = lt.TrainingDoctor(rules=[find_of_a_module])
    for copied in (pickle.loads(pickle.dumps(doctor)), copy.deepcopy(doctor)):
        assert copied.rules == (find_of_a_module,)


def test_it_is_folded_under_what_it_follows_from() -> None:
    history = train(deep(nn.ReLU, 3), normalised=False, steps=40)
    rule = coarse_input(stage="end", brings_about=(), follows_from="unnormalized_input")
    (top,) = lt.diagnose(history, rules=[rule]).findings
    assert (top.problem, [finding.problem for finding in top.consequences]) == ("unnormalized_input", ["coarse_input"])


def test_it_can_be_ignored() -> None:
    history, rules = train(deep(nn.ReLU, 3), steps=10), [coarse_input()]
    assert not lt.diagnose(history, rules=rules).healthy
    assert lt.diagnose(history, rules=rules, ignore=["coarse_input"]).healthy
    with pytest.raises(ValueError, match="unknown problem to ignore 'coarse_input'; known are linearity, "):
        lt.diagnose(history, ignore=["coarse_input"])


def test_a_finding_of_a_rule_that_is_not_here_prints_by_its_name() -> None:
    finding = lt.Finding("coarse_input", "0", "warning", 3)
    assert "warning: coarse input at layer 0" in str(lt.Diagnosis([finding]))


class Digits(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = deep(nn.ReLU, 2)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


def test_a_doctor_and_a_checkup_take_it(tmp_path: Any) -> None:
    rule = coarse_input()
    loader = DataLoader(TensorDataset(*digits()), batch_size=64)
    diagnosis = lt.checkup(Digits(), loader, num_batches=4, rules=[rule], experiments="none")
    assert [finding.problem for finding in diagnosis.findings if finding.rank] == ["coarse_input"]
    assert lt.checkup(
        Digits(), loader, num_batches=4, rules=[rule], ignore=["coarse_input"], experiments="none"
    ).healthy

    doctor = lt.TrainingDoctor(rules=[rule], report=False, on_problem="stop")
    trainer = L.Trainer(
        max_steps=20, callbacks=[doctor], logger=False, accelerator="cpu", default_root_dir=tmp_path,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="coarse_input at net.0, since step 0"):
        trainer.fit(Digits(), loader)
    assert trainer.global_step < 20
    assert doctor.diagnosis.findings[0].problem == "coarse_input"
    assert lt.TrainingDoctor(rules=[rule], ignore=("coarse_input",)).ignore == ("coarse_input",)


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        (lambda: [print], TypeError, r"rules must be made by lightning_tricks.rule\(...\)"),
        (lambda: [coarse_input(), coarse_input()], ValueError, "there is a rule for coarse_input already"),
        (lambda: [lt.rule("linearity", "end")(lambda history: [])], ValueError, "a rule for linearity already"),
        (lambda: [lt.rule("my problem", "end")(lambda history: [])], ValueError, "problem must be a name"),
        (lambda: [lt.rule("mine", "later")(lambda history: [])], ValueError, "unknown stage 'later'; known are code, "),
    ],
)
def test_what_is_no_rule_is_an_error_at_once(rules: Any, error: type[Exception], message: str) -> None:
    for use in (lambda given: lt.diagnose([], rules=given), lambda given: lt.TrainingDoctor(rules=given)):
        with pytest.raises(error, match=message):
            use(rules())


def test_a_rule_that_fails_is_named():
    @lt.rule("fails_always", "end")
    def find_fails_always(history):
        raise ZeroDivisionError("by nothing")

    @lt.rule("gives_others", "end")
    def find_gives_others(history):
        return [lt.Finding("dead_units", None, "info", 0)]

    with pytest.raises(RuleError, match="the rule of fails_always failed: ZeroDivisionError: by nothing"):
        find_fails_always([lt.Snapshot()])
    with pytest.raises(RuleError, match="the rule of gives_others has to give findings of that problem"):
        find_gives_others([lt.Snapshot()])
    with pytest.raises(ValueError, match="reads must be one of finite"):
        lt.rule("reads_wrongly", "end", reads="Finite")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs must be of layers, activations"):
        lt.rule("needs_wrongly", "end", needs="update")  # type: ignore[arg-type]
    assert lt.diagnose([lt.Snapshot()], rules=(each for each in [find_gives_others][:0])).findings == []


def test_a_doctor_goes_on_without_a_rule_that_fails():
    @lt.rule("fails_in_a_doctor", "end")
    def find_fails_in_a_doctor(history):
        raise ZeroDivisionError

    doctor = lt.TrainingDoctor(rules=find_fails_in_a_doctor, ignore=("fails_in_a_doctor",))
    key = doctor.state_key
    with pytest.warns(UserWarning, match="the rule of fails_in_a_doctor failed"):
        doctor.on_snapshot(lt.Snapshot(0, loss=1.0))
    assert doctor.diagnosis.history
    doctor.on_snapshot(lt.Snapshot(1, loss=1.0))
    assert doctor.rules == ()
    assert doctor.state_key == key != lt.TrainingDoctor().state_key


@pytest.mark.parametrize(
    ("severity", "step", "read", "kept"), [("warning", 3, 1, "0"), ("info", 3, 2, "1"), ("warning", 4, 2, "1")]
)
def test_where_only_the_first_counts_a_rule_stops_at_one_that_nothing_can_come_before(
    severity: Any, step: int, read: int, kept: str
) -> None:
    """One that is sure and began with the first look; of others a later one may be surer, or older."""
    made: list[str] = []

    @lt.rule("of_many", "end", first_only=True)
    def find_of_many(history: Sequence[lt.Snapshot]) -> Iterator[lt.Finding]:
        for layer, how, since in (("0", severity, step), ("1", "warning", 3)):
            made.append(layer)
            yield lt.Finding("of_many", layer, how, since)

    (found,) = find_of_many([lt.Snapshot(3), lt.Snapshot(4)])
    assert (len(made), found.layer) == (read, kept)


def test_of_a_rule_that_keeps_all_all_are_asked() -> None:
    @lt.rule("of_many", "end")
    def find_of_many(history: Sequence[lt.Snapshot]) -> Iterator[lt.Finding]:
        yield from (lt.Finding("of_many", layer, "warning", 3) for layer in "01")

    assert [found.layer for found in find_of_many([lt.Snapshot(3)])] == ["0", "1"]
