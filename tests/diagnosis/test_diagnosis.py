import dataclasses
import json
import pickle

import numpy as np
import pytest

from lightning_tricks.diagnosis import Finding
from lightning_tricks.diagnosis.finding import Trait
from lightning_tricks.probes import Snapshot
from lightning_tricks.report import Diagnosis


def info(**changes):
    return dataclasses.replace(Finding("linearity", "net.1", "info", 0), **changes)


def test_a_healthy_run_names_what_was_looked_at(sigmoids):
    diagnosis = Diagnosis([], sigmoids)
    assert diagnosis.healthy
    assert diagnosis.verdict == "Healthy so far: no fault found in 3 steps, too early to tell whether it learns."
    assert Diagnosis([info()], sigmoids).verdict == diagnosis.verdict
    later = [*sigmoids, dataclasses.replace(sigmoids[-1], step=99)]
    assert Diagnosis([], later).verdict == "Healthy: no warnings in 4 probed steps (0 to 99)."


def test_silence_is_not_health():
    assert Diagnosis().verdict == "Unknown: nothing was looked at yet."
    assert Diagnosis([info()]).state == "unknown"
    assert Diagnosis([], [Snapshot(0), Snapshot(1)]).verdict.startswith("Unknown: no layer was seen in 2 probed steps")


def test_one_step_is_too_few(sigmoids):
    verdict = "Healthy so far: no fault found in 1 step, too early to tell whether it learns."
    assert Diagnosis([], sigmoids[:1]).verdict == verdict


def test_a_slow_training_is_healthy_with_a_but(sigmoids):
    later = [*sigmoids, dataclasses.replace(sigmoids[-1], step=499)]
    slow = info(problem="poor_initialization", layer="net.0", traits=frozenset({Trait.SLOW}))
    diagnosis = Diagnosis([slow], later)
    assert diagnosis.healthy
    assert diagnosis.verdict == "Healthy: it learns, but slowly: the weights begin at the wrong scale at net.0."


def test_the_verdict_names_the_symptom_and_its_cause(cause, second, sigmoids):
    diagnosis = Diagnosis([cause, second], sigmoids)
    assert not diagnosis.healthy
    assert diagnosis.verdict == (
        "Sick: the gradient vanishes because the weights begin at the wrong scale at layer 2 (and 1 more finding)."
    )
    assert Diagnosis([second]).verdict == "Sick: the input is not normalized."
    assert Diagnosis([info(), second]).verdict == "Sick: the input is not normalized."


@pytest.mark.parametrize("severity", ["warning", "critical"])
def test_a_folded_finding_counts(severity):
    root = info(consequences=(info(consequences=(info(severity=severity),)),))
    assert not Diagnosis([root]).healthy
    assert Diagnosis([root]).verdict.startswith("Sick")


def test_the_headline_is_what_stops_the_learning():
    """Of the gravest consequences; one that is milder than its cause makes no headline."""
    following = (
        info(problem="bias_shift", severity="critical"),
        info(problem="vanishing_gradient", severity="critical"),
    )
    root = info(problem="poor_initialization", severity="critical", consequences=following)
    assert Diagnosis([root]).verdict.startswith("Sick: the gradient vanishes because")
    mild = info(problem="vanishing_gradient", severity="warning")
    assert Diagnosis([dataclasses.replace(root, consequences=(mild,))]).verdict == (
        "Sick: the weights begin at the wrong scale at net.1."
    )


def test_it_does_not_change_with_the_run_it_came_from(sigmoids):
    history, findings = list(sigmoids), [info()]
    diagnosis = Diagnosis(findings, history)
    history.append(sigmoids[0])
    findings.clear()
    assert len(diagnosis.history) == 3
    assert len(diagnosis.findings) == 1


def test_to_dict_is_plain_json(cause, second, spoilt):
    odd = info(
        evidence={"a": np.float32(0.5), "b": np.array([1.0, np.nan]), "c": float("inf"), "d": {1: {2}}, "e": object}
    )
    diagnosis = Diagnosis([cause, second, odd], spoilt)
    restored = json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))
    assert restored["verdict"] == diagnosis.verdict
    assert restored["healthy"] is False
    assert restored["findings"][0]["consequences"][0]["evidence"] == {"slope": -0.514, "loss": None}
    assert restored["findings"][2]["evidence"] | {"e": ""} == {
        "a": 0.5,
        "b": [1.0, None],
        "c": None,
        "d": {"1": [2]},
        "e": "",
    }
    assert [Snapshot.from_dict(one).step for one in restored["history"]] == [0, 1, 2]
    assert json.loads(json.dumps(Diagnosis().to_dict(), allow_nan=False))["history"] == []


def test_to_csv_writes_the_history(sigmoids, tmp_path):
    path = Diagnosis([], sigmoids).to_csv(tmp_path / "history.csv")
    assert len(path.read_text(encoding="utf-8").splitlines()) > 100
    assert len(Diagnosis().to_csv(tmp_path / "none.csv").read_text(encoding="utf-8").splitlines()) == 1


def test_it_can_be_pickled(cause, sigmoids):
    diagnosis = Diagnosis([cause], sigmoids)
    assert str(pickle.loads(pickle.dumps(diagnosis))) == str(diagnosis)


def test_its_repr_is_short(cause, second, sigmoids, deep):
    assert repr(Diagnosis([cause, second], deep)) == "Diagnosis(sick, 2 findings, 2 snapshots)"
    assert repr(Diagnosis([info()], sigmoids[:1])) == "Diagnosis(healthy, 1 finding, 1 snapshot)"
    assert repr(Diagnosis()) == "Diagnosis(unknown, 0 findings, 0 snapshots)"
    assert repr(Diagnosis([], [Snapshot()])) == "Diagnosis(unknown, 0 findings, 1 snapshot)"


def test_the_repr_of_a_snapshot_is_short(sigmoids):
    last = dataclasses.replace(sigmoids[-1], loss=2.3149, not_seen={})
    assert repr(last) == "Snapshot(step=2, loss=2.31, 6 activations, 7 weighted, 14 parameters)"
    assert repr(Snapshot(not_seen={"a": "scripted"})) == (
        "Snapshot(step=0, loss=nan, 0 activations, 0 weighted, 0 parameters, 1 not seen)"
    )


def test_a_histogram_is_of_plain_floats(sigmoids):
    shares = sigmoids[-1].activations[0].histogram
    assert len(shares) == 34
    assert {type(share) for share in shares} == {float}
