"""The clinic itself: enough runs of every kind in both halves, known truths, right figures."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from scipy.stats import binomtest

from tests.benchmarks.clinic.case import Case, Fault
from tests.benchmarks.clinic.cases import all_cases, double_cases, healthy_list, sick_cases
from tests.benchmarks.clinic.cases.healthy import usual
from tests.benchmarks.clinic.faults import KINDS, planted
from tests.benchmarks.clinic.judging.counts import Share
from tests.benchmarks.clinic.judging.truth import layers_of
from tests.benchmarks.clinic.networks.architectures import ARCHITECTURES
from tests.benchmarks.clinic.store import Store
from tests.benchmarks.clinic.train import Run


def test_there_are_enough_runs_and_every_kind_is_in_both_halves() -> None:
    sick = sick_cases()
    assert len(healthy_list()) >= 300
    assert len(sick) >= 250
    assert len(double_cases()) >= 20
    assert {case.faults[0].kind for case in sick} == set(KINDS)
    for problem in {kind.problem for kind in KINDS.values()}:
        halves = Counter(case.half for case in sick if KINDS[case.faults[0].kind].problem == problem)
        assert min(halves["A"], halves["B"]) >= 3, problem
    names = [case.name for case in all_cases()]
    assert len(set(names)) == len(names)


def test_every_family_is_in_both_halves() -> None:
    families = defaultdict(set)
    for architecture in ARCHITECTURES.values():
        families[architecture.family].add(architecture.half)
    assert len(ARCHITECTURES) >= 16
    assert set(map(frozenset, families.values())) == {frozenset("AB")}


def test_a_twin_is_the_same_run_without_the_fault() -> None:
    everything = set(all_cases())
    for case in sick_cases():
        assert not case.twin.sick
        assert case.twin in everything
        assert (case.twin.optimizer, case.twin.lr, case.twin.seed) == (case.optimizer, case.lr, case.seed)


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if not name.startswith("linear")])
def test_every_hidden_place_has_names_that_the_probe_records(architecture: str) -> None:
    network = planted(usual(architecture)).network
    for place in range(len(network.places)):
        names = layers_of(usual(architecture), Fault("tiny weights", place))
        assert f"net.{network.places[place].weighted}" in names
        assert len(names) >= 2, "the activation as well"


def test_the_layer_of_a_fault_is_its_place_and_no_other() -> None:
    names = layers_of(usual("mlp_bn"), Fault("huge biases", 2))
    assert names == {f"net.blocks.2.{part}" for part in ("weighted", "norm", "activation")}
    behind = layers_of(usual("sequential4"), Fault("shifted output", 1))
    assert behind == {"net.layers.3", "net.layers.4", "net.layers.6"}
    assert layers_of(usual("mlp3"), Fault("learning rate high")) == {None}


@pytest.mark.parametrize(("hits", "of"), [(0, 20), (3, 17), (50, 50), (199, 200)])
def test_intervals_are_wilsons(hits: int, of: int) -> None:
    expected = binomtest(hits, of).proportion_ci(0.95, "wilson")
    assert Share(hits, of).interval == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_runs_come_back_from_the_store(tmp_path) -> None:
    case = Case("mlp3", "relu", faults=(Fault("tiny weights", 1, 0.01),))
    store = Store(tmp_path)
    assert store.missing([case, case.twin]) == [case, case.twin]
    store.save(Run(case, (), (1.0, 2.0), ((50, 0.5, 0.9),)))
    assert store.missing([case, case.twin]) == [case.twin]
    path = store.find(case)
    assert path is not None
    assert store.load(path).case == case
    assert store.load(path).accuracy == 0.9
