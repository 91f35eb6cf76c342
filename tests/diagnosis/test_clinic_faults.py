"""The clinic's faults of the whole training: each does what its name says, and its twin does not."""

from __future__ import annotations

import dataclasses

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor

from tests.benchmarks.clinic.case import Case
from tests.benchmarks.clinic.cases import whole_cases
from tests.benchmarks.clinic.cases.healthy import usual
from tests.benchmarks.clinic.data import raw_validation
from tests.benchmarks.clinic.faults import KINDS, planted
from tests.benchmarks.clinic.judging.harm import is_harmed
from tests.benchmarks.clinic.judging.truth import layers_of
from tests.benchmarks.clinic.setup import Setup
from tests.benchmarks.clinic.train import Run, Training, fit, loaders_of


def _first_of_each(problem: str | None = None) -> list[Case]:
    """A case of every kind of fault, or of those of a problem."""
    sick = [case for case in whole_cases() if case.sick]
    kinds = {case.faults[0].kind: case for case in reversed(sick)}
    return [case for kind, case in kinds.items() if problem in (None, KINDS[kind].problem)]


def _case(kind: str) -> Case:
    return next(case for case in _first_of_each() if case.faults[0].kind == kind)


def _name(case: Case) -> str:
    return case.faults[0].kind


@pytest.mark.parametrize("case", _first_of_each(), ids=_name)
def test_a_fault_gives_a_loss_and_right_layers(case: Case) -> None:
    setup = planted(case)
    loss = Training(setup).loss_of(*next(iter(loaders_of(setup)[0])))
    assert loss.dim() == 0
    assert bool(loss.isfinite())
    assert layers_of(case, case.faults[0])


def test_each_problem_is_in_three_seeds_and_both_halves() -> None:
    sick = [case for case in whole_cases() if case.sick]
    for problem in {KINDS[case.faults[0].kind].problem for case in sick}:
        own = [case for case in sick if KINDS[case.faults[0].kind].problem == problem]
        assert {case.seed for case in own} >= {0, 1, 2}, problem
        assert {case.half for case in own} == {"A", "B"}, problem
        assert len({case.architecture for case in own}) >= 4, problem


def _answers(setup: Setup, x: Tensor) -> Tensor:
    setup.network.eval()
    with torch.no_grad():
        return setup.network(x)


@pytest.mark.parametrize("case", _first_of_each("batch_mixing"), ids=_name)
def test_patterns_meet_in_the_sick_run_alone(case: Case) -> None:
    for each, meet in ((case, True), (case.twin, False)):
        setup = planted(each)
        x = setup.data.x[:16].clone()
        other = x.clone()
        other[:8] = x[8:]
        apart = (_answers(setup, x)[8:] - _answers(setup, other)[8:]).abs().max()
        assert bool(apart > 1e-5) == meet, each.name


@pytest.mark.parametrize(
    "case", [c for c in _first_of_each("target_leak") if _name(c) != "targets not shifted"], ids=_name
)
def test_positions_see_what_follows_in_the_sick_run_alone(case: Case) -> None:
    for each, seen in ((case, True), (case.twin, False)):
        setup = planted(each)
        x = setup.data.x[:16].clone()
        other = x.clone()
        other[:, 8:] = x[:, 8:].flip(0)
        apart = (_answers(setup, x)[:, :8] - _answers(setup, other)[:, :8]).abs().max()
        assert bool(apart > 1e-5) == seen, each.name


def test_loaders_are_sorted_or_shuffled_and_targets_come_apart() -> None:
    sick, twin = planted(_case("sorted by class")), planted(_case("sorted by class").twin)
    assert bool((torch.cat([y for _, y in loaders_of(sick)[0]]).diff() >= 0).all())
    assert not bool((torch.cat([y for _, y in loaders_of(twin)[0]]).diff() >= 0).all())
    pairs = {(tuple(x.tolist()), int(y)) for x, y in zip(sick.data.x, sick.data.y, strict=True)}
    (x, y), *_ = loaders_of(planted(_case("shuffled apart")))[0]
    assert sum((tuple(a.tolist()), int(b)) in pairs for a, b in zip(x, y, strict=True)) < len(x) / 2


def test_validation_is_raw_where_training_is_standardized() -> None:
    case = _case("validation raw")
    data = planted(case).data
    assert bool((data.x_val == raw_validation(case.data)).all())
    assert float(data.x.std()) == pytest.approx(1.0, abs=0.1)


def test_rare_classes_are_as_rare_as_they_are_said_to_be() -> None:
    case = _case("rare class")
    assert float(planted(case).data.y.float().mean()) == pytest.approx(case.faults[0].strength, abs=0.01)
    positives = float(planted(usual("masks")).data.y.float().mean())
    assert 0.01 < positives < 0.03


@pytest.mark.parametrize("kind", ["step forgotten", "rate of zero", "loss of a number", "optimizer of a copy"])
def test_nothing_moves_without_a_step(kind: str) -> None:
    for each, moves in ((_case(kind), False), (_case(kind).twin, True)):
        setup = planted(dataclasses.replace(each, steps=50))
        before = [parameter.clone() for parameter in setup.network.parameters()]
        assert fit(Training(setup), loaders_of(setup), setup.case, L.Callback()) == ""
        pairs = zip(before, setup.network.parameters(), strict=True)
        assert any(bool((old != new).any()) for old, new in pairs) == moves


def test_a_kind_says_how_much_it_has_to_cost() -> None:
    twin = _case("sorted by class").twin
    well = Run(twin, (), (1.0,), ((50, 0.1, 0.9),))
    for accuracy, harmed in ((0.85, False), (0.75, True)):
        sick = Run(_case("sorted by class"), (), (9.0,), ((50, 0.1, accuracy),))
        assert is_harmed(sick, well) == harmed


def test_runs_stored_before_a_setting_came_keep_their_names() -> None:
    assert usual("attention1", batch=16, seed=204).digest == "63efca237e37"
    assert usual("attention1", batch=16, seed=204, loop="epochs").digest != "63efca237e37"
