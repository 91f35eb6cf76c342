"""Classes that validation numbers otherwise, or alone has; disjoint and rare ones are there on purpose."""

from __future__ import annotations

import importlib

import pytest
import torch

import lightning_tricks as lt
from lightning_tricks.experiments import classes
from lightning_tricks.experiments.data.patterns.neighbours import Data

module = importlib.import_module("lightning_tricks.experiments.data.classes")
G = torch.Generator().manual_seed(0)
Y = torch.arange(500) % 5
X = 6 * torch.eye(5, 6)[Y] + torch.randn(500, 6, generator=G)


def alarms(y_val, y=Y, x=X):
    data = Data((x[:400], y[:400]), (x[400:], y_val))
    counted = module._counted(data)
    return list(module.judged(lt.Experiment("classes", "", counted.text, counted.numbers), data))


def test_counts():
    found = classes((torch.randn(100, 2), torch.tensor([0] * 70 + [1] * 20 + [3] * 10)))
    assert found.numbers["classes"] == 3
    assert found.numbers["most"] == pytest.approx(0.7)
    assert found.numbers["absent"] == 1
    assert found.numbers["runs"] > 10  # they lie sorted


def test_alike_is_alike():
    assert not alarms(Y[400:])


@pytest.mark.parametrize(
    ("renamed", "said"), [([1, 2, 3, 4, 5], "all by -1"), ([3, 1, 0, 2, 4], "0: 2"), ([1, 0, 2, 3, 4], "0: 1, 1: 0")]
)
def test_classes_that_were_numbered_apart(renamed, said):
    (finding,) = alarms(torch.tensor(renamed)[Y[400:]])
    assert finding.problem == "validation_mismatch"
    assert said in finding.explanation


def test_a_class_that_the_training_lacks():
    lacking = torch.where(Y == 4, 3, Y)
    (finding,) = alarms(Y[400:], lacking)
    assert finding.evidence["classes"] == "4"
    assert "4, 9, 14" in str(finding.evidence)


def test_disjoint_classes_are_so_on_purpose():
    assert not alarms(torch.tensor([11, 10, 13, 12, 14])[Y[400:]])
    assert alarms(Y[400:] + 10)


def test_labels_that_no_neighbour_knows_are_not_renumbered():
    noise = torch.randn(500, 6, generator=G)
    assert not alarms((Y[400:] + 1) % 5, x=noise)


def test_without_classes():
    assert not classes((X, X[:, :1])).conclusive


def test_patterns_of_other_classes_are_shown():
    y_val = Y[400:].clone()
    y_val[[3, 7]] = 9
    shown = classes((X[:400], Y[:400]), (X[400:], y_val)).examples
    assert [(each.index, each.part) for each in shown] == [(3, "validation"), (7, "validation")]
    others = classes((X[:400], Y[:400]), (X[400:], (Y[400:] + 1) % 5)).examples
    assert [each.text for each in others][:1] == ["of class 0, training patterns like it of 4"]
