"""The set of healthy trainings that look odd: enough kinds, runs that are trained, proven, stored and judged."""

from __future__ import annotations

import dataclasses

import pytest

from tests.benchmarks.clinic.adversarial import train as training
from tests.benchmarks.clinic.adversarial.case import SEEDS, HealthyCase
from tests.benchmarks.clinic.adversarial.cases import all_cases, all_kinds
from tests.benchmarks.clinic.adversarial.judging import failures, judge_all, markdown
from tests.benchmarks.clinic.adversarial.store import HealthyStore

QUICK = ("warm restarts", "direct preference optimisation")


def test_every_kind_runs_with_three_seeds() -> None:
    cases = all_cases()
    assert len(SEEDS) >= 3
    assert len(cases) == len(set(cases)) == len(all_kinds()) * len(SEEDS)


@pytest.mark.parametrize("kind", QUICK)
def test_a_run_is_proven_stored_and_judged(kind: str, tmp_path, monkeypatch) -> None:
    short = all_kinds()[kind]
    monkeypatch.setitem(
        all_kinds(),
        kind,
        dataclasses.replace(short, build=_of_two_epochs(short.build), at_least=-1.0),
    )
    store, case = HealthyStore(tmp_path), HealthyCase(kind, 0)
    run = training.train(case)
    assert run.error == ""
    assert len(run.snapshots) > 5
    assert run.validation, "the doctor heard of the validations"
    assert len(run.losses) > 20
    store.save(run)
    assert store.missing([case]) == []
    (verdict,) = judge_all([case], store)
    assert verdict.counts
    assert verdict.score == run.score
    assert kind in markdown([verdict])
    assert len(list(failures([verdict]))) == len(verdict.alarms)


def test_a_run_that_misses_its_figure_counts_for_nothing(tmp_path, monkeypatch) -> None:
    short = all_kinds()[QUICK[0]]
    monkeypatch.setitem(
        all_kinds(), short.name, dataclasses.replace(short, build=_of_two_epochs(short.build), at_least=1.1)
    )
    store = HealthyStore(tmp_path)
    run = training.train(HealthyCase(short.name, 0))
    assert run.error.startswith(training.UNFIT)
    store.save(run)
    (verdict,) = judge_all([run.case], store)
    assert not verdict.counts
    assert next(iter(failures([verdict]))).startswith("UNFIT")
    assert "healthy by their own measure 0" in markdown([verdict])


def _of_two_epochs(build):
    def built(seed: int):
        plan = build(seed)
        plan.epochs, plan.options = 2, {"limit_train_batches": 20}
        return plan

    return built
