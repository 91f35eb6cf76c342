"""A fixed small part of the clinic: healthy trainings are silent at every look, planted faults are named and placed.

The whole of it: python -m tests.benchmarks.clinic
"""

from __future__ import annotations

import functools

import pytest

from tests.benchmarks.clinic.case import Case, Fault
from tests.benchmarks.clinic.cases.healthy import usual
from tests.benchmarks.clinic.judging.verdict import Verdict, judge
from tests.benchmarks.clinic.train import Run, train

# Strange to look at, and well. At least one of every family of architectures.
HEALTHY: tuple[Case, ...] = (
    usual("mlp3", start="sparse"),
    usual("sequential4", activation="gelu"),
    usual("functional5", activation="silu", optimizer="momentum"),
    usual("mlp_bn", batch=32, optimizer="sgd"),
    usual("swiglu", steps=150),
    usual("lstm", steps=150),
    usual("tied", activation="gelu", optimizer="rmsprop"),
    usual("selu12", optimizer="sgd"),
    usual("linear", optimizer="momentum"),
    usual("mlp3", schedule="warmup cosine", optimizer="adamw"),
    usual("sequential4", pretrained="frozen", lr=2.0, steps=150),
    usual("functional3", data="cancer", loss="bce", lr=0.5, steps=150),
    Case("gan", "relu", data="moons", batch=256, steps=500, lr=1.5),
)


def _sick(architecture: str, kind: str, place: int | None = None, strength: float = 1.0, **settings: object) -> Case:
    return usual(architecture, faults=(Fault(kind, place, strength),), **settings)


SICK: tuple[Case, ...] = (
    _sick("mlp3", "no activation", data="circles"),
    _sick("mlp6", "huge biases", 2, 20.0, activation="tanh"),
    _sick("functional3", "negative biases", 1, -20.0),
    _sick("mlp10", "deep sigmoid"),
    _sick("mlp6", "large weights", strength=6.0, optimizer="momentum"),
    _sick("sequential4", "shifted output", 1, 15.0, optimizer="sgd"),
    _sick("mlp3", "layer scaled", 1, 1e-3, optimizer="sgd"),
    _sick("sequential4", "constant weights", 1, 0.1),
    _sick("functional3", "input scaled", strength=255.0, optimizer="sgd"),
    _sick("mlp6", "log", 1),
    _sick("sequential4", "detach", 1, optimizer="sgd"),
    _sick("mlp3", "learning rate high", strength=300.0),
    _sick("sequential4", "learning rate low", strength=1e-5),
    _sick("mlp3", "softmax before cross entropy"),
    _sick("sequential4", "few noisy patterns", strength=120.0, batch=32, steps=600),
    _sick("mlp_bn", "slow statistics", strength=1e-4),
)


@functools.cache
def verdict(case: Case) -> Verdict:
    run: Run = train(case)
    assert run.error == ""
    return judge(run, run if case.sick else None)  # a twin would only tell how much harm is done


@pytest.mark.parametrize("case", HEALTHY, ids=lambda case: case.name)
def test_healthy_runs_are_silent_at_every_look(case: Case) -> None:
    found = verdict(case)
    assert found.error == ""
    assert found.group == "healthy", "the run itself has to be a good one"
    assert [str(named) for _, named in found.alarms] == []


@pytest.mark.parametrize("case", SICK, ids=lambda case: case.name)
def test_planted_faults_are_named_first(case: Case) -> None:
    found = verdict(case)
    assert found.error == ""
    assert found.named_acceptably, [str(named) for named in found.final]


@pytest.mark.parametrize("case", SICK, ids=lambda case: case.name)
def test_the_faulty_layer_is_named(case: Case) -> None:
    found = verdict(case)
    assert found.layer_right, (found.first, sorted(map(str, found.truths[0].layers)))


def test_the_replayed_history_gives_what_the_callback_says() -> None:
    """The judge reads whole snapshots through the same shortening of the history as a callback's."""
    from lightning_tricks import TrainingDoctor
    from tests.benchmarks.clinic.faults import planted
    from tests.benchmarks.clinic.train import Training, fit, loaders_of

    case = SICK[2]
    doctor = TrainingDoctor(every_n_steps=case.look, on_problem="log", report=False)
    setup = planted(case)
    assert fit(Training(setup), loaders_of(setup), case, doctor) == ""
    said = [(finding.problem, finding.layer, finding.severity, finding.step) for finding in doctor.diagnosis.findings]
    assert said == [(named.problem, named.layer, named.severity, named.step) for named in verdict(case).final]
    assert said
