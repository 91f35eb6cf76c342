"""Trying: which experiments a checkup makes, what ends it, and what becomes of findings."""

from __future__ import annotations

import io
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.experiments.asking import registry, trying
from lightning_tricks.experiments.asking.registry import entries, tried

BATCH = torch.randn(16, 6, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3


def net(*tail):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), *tail)


def check(*tail, **options):
    return lt.checkup(net(*tail), BATCH, F.cross_entropy, **{"num_batches": 4, **options})


@pytest.fixture
def own(monkeypatch):
    """A registry of the test's own."""
    monkeypatch.setattr(registry, "_ENTRIES", {})
    made = []

    def enter(name, cost="forwards", **more):
        def run(subject):
            made.append(name)
            return lt.Experiment(name, "?", "!", {"seen": 1.0})

        tried(name, cost, **more)(run)

    return enter, made


def test_those_without_a_training_come_first_and_each_is_made_once():
    names = [entry.name for entry in entries()]
    costs = [entry.cost for entry in entries()]
    assert costs == sorted(costs)  # forwards, then trainings
    assert len(set(names)) == len(names)
    assert set(names) <= set(lt.experiments.__all__)


@pytest.mark.parametrize(
    ("experiments", "names"),
    [("none", []), ("reach", ["reach"]), (["own_input", "free_outputs"], ["free_outputs", "own_input"])],
)
def test_chosen_ones(experiments, names):
    assert [each.name for each in check(experiments=experiments).experiments] == names


@pytest.mark.parametrize(("wrong", "error"), [("reachh", ValueError), (["auto"], ValueError), (3, TypeError)])
def test_unknown_ones_are_an_error_before_the_work(wrong, error):
    begun = time.perf_counter()
    with pytest.raises(error, match="experiment"):
        lt.checkup(net(), None, F.cross_entropy, experiments=wrong)
    assert time.perf_counter() - begun < 60


def test_the_rules_findings_stay_and_get_their_proof():
    without, with_it = check(nn.Softmax(1), experiments="none"), check(nn.Softmax(1), experiments="free_outputs")
    assert [each.problem for each in without.findings] == [each.problem for each in with_it.findings]
    assert with_it.findings[0].proof == with_it.experiments[0]
    assert "tried: free_outputs" in with_it.findings[0].why()


def test_every_experiment_says_how_its_numbers_are_read():
    """From the docstring, names and all; one that is asked by a checkup as well."""
    made = check(experiments="all").experiments
    assert len(made) > 10
    readings = {each.name: each.reading for each in made if each.conclusive}
    assert all(reading.startswith(("Numbers", "The ", "Validation ")) for reading in readings.values())
    assert readings["reach"].splitlines()[1].startswith("How to read it: detached: ")
    assert "`not_held` by the optimiser" in readings["reach"]
    assert not any(">>>" in reading or "``" in reading for reading in readings.values())


def by_hand(output, target):
    """Cross-entropy that no rule knows as such."""
    return (output.logsumexp(1) - output[torch.arange(len(target)), target]).mean()


def test_an_activation_that_keeps_a_loss_of_ones_own_from_its_floor_is_found():
    diagnosis = lt.checkup(net(nn.Sigmoid()), BATCH, by_hand, experiments="free_outputs")
    (finding,) = (each for each in diagnosis.findings if each.problem == "output_mismatch")
    assert (finding.severity, finding.layer) == ("warning", "3")
    assert "take sigmoid away" in finding.remedies[0].text
    assert finding.decided_by[0].holds
    assert finding.proof == diagnosis.experiments[0]
    assert not lt.checkup(net(), BATCH, by_hand, experiments="free_outputs").findings


def test_a_rectifier_that_reaches_its_targets_is_no_fault():
    def loss_fn(output, target):
        return (output - target[:, None]).abs().mean()

    assert not lt.checkup(net(nn.ReLU()), BATCH, loss_fn, experiments="free_outputs").findings


def test_what_is_ignored_is_not_brought():
    diagnosis = lt.checkup(net(nn.Sigmoid()), BATCH, by_hand, experiments="free_outputs", ignore=["output_mismatch"])
    assert not diagnosis.findings


def test_trainings_only_where_they_are_asked_for(own):
    enter, made = own
    enter("cheap")
    enter("dear", "trainings")
    check()
    assert made == ["cheap"]  # how far it has come is not known
    check(nn.Softmax(1))
    assert made == ["cheap", "cheap", "dear"]  # a finding waits for its proof
    check(experiments="all")
    assert made[3:] == ["cheap", "dear"]


def test_a_proof_needs_no_training(own):
    enter, made = own
    enter("cheap", proves=lambda tried, finding: True)
    enter("dear", "trainings")
    check(nn.Softmax(1))
    assert made == ["cheap"]


def test_interrupt_keeps_what_is_known(own):
    enter, made = own
    enter("first")

    def interrupted(subject):
        raise KeyboardInterrupt

    tried("second", order=1)(interrupted)
    enter("third", order=2)
    diagnosis = check()
    assert [each.name for each in diagnosis.experiments] == made == ["first"]
    assert diagnosis.history


def test_no_time_no_experiment():
    assert check(max_seconds=0).experiments == []


def test_one_that_fails_is_not_judged_and_the_others_go_on(own):
    enter, _ = own

    def failing(subject):
        raise ZeroDivisionError("of this\nand that")

    tried("broken")(failing)
    enter("sound", order=1)
    broken, sound = check().experiments
    assert (broken.conclusive, sound.conclusive) == (False, True)
    assert broken.answer == "ZeroDivisionError: of this"


def test_a_model_too_large_for_a_copy_is_not_copied(monkeypatch):
    monkeypatch.setattr(trying, "LARGEST_COPY", 8)
    (found,) = check(experiments="reach").experiments
    assert "too large" in found.answer


def test_a_surer_finding_takes_the_place_of_a_rules_information(own):
    def brings(subject, made):
        yield Finding("output_mismatch", "2", "critical", 0, {"seen": 1.0})

    enter, _ = own
    enter("sees", brings=brings)
    diagnosis = check()
    assert [(each.problem, each.severity) for each in diagnosis.findings] == [("output_mismatch", "critical")]
    assert diagnosis.findings[0].proof == diagnosis.experiments[0]
    assert diagnosis.state == "sick"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_only_a_terminal_shows_what_is_tried(monkeypatch, capsys):
    check(experiments="reach")
    assert capsys.readouterr() == ("", "")
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    check(experiments="reach", progress=False)
    assert not terminal.getvalue()
    check(experiments="reach")
    assert "trying reach (1 of 1)" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[K")


@pytest.mark.parametrize(("guess", "dear"), [(100.0, False), (0.7, True)], ids=["near the floor", "not near"])
def test_far_from_the_floor_trainings_are_tried(own, guess, dear):
    enter, made = own

    @tried("free_outputs")
    def way(subject):
        return lt.Experiment("free_outputs", "", "", {"guess": guess, "floor": 0.0})

    enter("dear", "trainings")
    check()
    assert made == ["dear"] * dear
