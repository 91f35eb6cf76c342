"""Predictions and their uncertainty against naive sums; export."""

import math

import pytest
import torch

from lightning_tricks.ensemble import Prediction
from lightning_tricks.ensemble.evaluation.prediction import as_prediction
from tests.ensemble.trainings import DOUBLE


def naive_entropy(probabilities):
    return -sum(p * math.log(p) for p in probabilities if p > 0)


def test_against_naive_sums():
    members = torch.rand(5, 7, 4, dtype=DOUBLE).softmax(-1)
    found = Prediction(members, "classification")
    for n in range(7):
        mean = [sum(float(members[k, n, c]) for k in range(5)) / 5 for c in range(4)]
        assert found.mean[n].tolist() == pytest.approx(mean)
        assert float(found.entropy[n]) == pytest.approx(naive_entropy(mean))
        inside = sum(naive_entropy(members[k, n].tolist()) for k in range(5)) / 5
        assert float(found.mutual_information[n]) == pytest.approx(naive_entropy(mean) - inside)
        variance = [sum((float(members[k, n, c]) - mean[c]) ** 2 for k in range(5)) / 5 for c in range(4)]
        assert found.variance[n].tolist() == pytest.approx(variance)


def test_regression_has_no_entropy():
    found = Prediction(torch.rand(3, 4, 1), "regression")
    assert found.entropy is None
    assert found.mutual_information is None


def test_certain_members():
    found = Prediction(torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]]), "classification")
    assert float(found.entropy) == 0.0
    assert float(found.mutual_information) == 0.0


def test_one_logit_is_two_classes():
    logits = torch.randn(6, 1)
    both = as_prediction(torch.cat([torch.zeros(6, 1), logits], 1), "classification")
    assert torch.allclose(as_prediction(logits, "classification"), both)
    assert torch.allclose(as_prediction(logits[:, 0], "classification"), both)


def test_outputs_that_cannot_be_averaged():
    with pytest.raises(TypeError, match="returned a tuple"):
        as_prediction((torch.zeros(1),), "regression")
    with pytest.raises(ValueError, match="logits of shape"):
        as_prediction(torch.zeros(1, 2, 3), "classification")
