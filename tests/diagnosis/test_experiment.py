"""The record of an experiment: plain JSON, one line, and its place in a finding and a diagnosis."""

from __future__ import annotations

import json

import pytest
import torch

from lightning_tricks import Diagnosis, Experiment, Finding

TRIED = Experiment(
    "reach", "What does the loss reach?", "all.", {"reached": 3, "share": float("nan")}, {"loss": (2.0, 1.0)}
)


def test_it_is_plain_json_by_itself_in_a_finding_and_in_a_diagnosis():
    plain = json.loads(json.dumps(TRIED.to_dict(), allow_nan=False))
    assert plain["numbers"] == {"reached": 3, "share": None}
    assert plain["curves"] == {"loss": [2.0, 1.0]}
    finding = Finding("no_update", None, "warning", 0, proof=TRIED)
    restored = json.loads(json.dumps(Diagnosis([finding], experiments=[TRIED]).to_dict(), allow_nan=False))
    assert restored["findings"][0]["proof"] == restored["experiments"][0] == plain


def test_numbers_of_torch_are_plain_too():
    assert Experiment("reach", "?", "!", {"loss": torch.tensor(2.0)}).to_dict()["numbers"] == {"loss": 2.0}


def test_why_ends_with_the_proof():
    finding = Finding("no_update", None, "warning", 0, proof=TRIED)
    assert finding.why().splitlines()[-1] == "- tried: reach: What does the loss reach? all."
    assert "tried" not in Finding("no_update", None, "warning", 0).why()


@pytest.mark.parametrize("conclusive", [True, False])
def test_one_line_says_whether_there_is_an_answer(conclusive):
    line = str(Experiment("reach", "What does the loss reach?", "all", conclusive=conclusive))
    assert len(line.splitlines()) == 1
    assert ("not judged" in line) is not conclusive


def test_a_diagnosis_has_a_list_of_its_own():
    tried = [TRIED]
    diagnosis = Diagnosis(experiments=tried)
    tried.clear()
    assert diagnosis.experiments == [TRIED]
