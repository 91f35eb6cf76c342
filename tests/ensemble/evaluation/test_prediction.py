"""Predictions and their uncertainty against naive sums; export."""

import copy
import math

import pytest
import torch

from lightning_tricks.ensemble import BaggingEnsemble, Prediction
from lightning_tricks.ensemble.evaluation.prediction import as_prediction
from tests.ensemble.trainings import DOUBLE, Plain, network


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


@pytest.fixture
def ensemble():
    made = BaggingEnsemble(lambda: Plain(network(0.5)), 4, task="classification")
    made.train()
    return made


def test_predict_is_each_member_in_eval_mode_in_batches(ensemble):
    x = torch.randn(9, 6, dtype=DOUBLE)
    found = ensemble.predict(x, batch_size=4)
    with torch.no_grad():
        naive = torch.stack([copy.deepcopy(member).eval()(x).softmax(-1) for member in ensemble.networks])
    assert torch.allclose(found.members, naive, atol=1e-15)
    assert all(module.training for module in ensemble.modules())
    assert not found.mean.requires_grad


def test_a_single_member_is_the_member():
    alone = BaggingEnsemble(Plain, 1, task="regression")
    x = torch.randn(5, 6, dtype=DOUBLE)
    assert torch.equal(alone.predict(x).mean, alone.members()[0].eval()(x))


def test_as_module_exports_with_a_free_batch_size(ensemble):
    module, x = ensemble.as_module(), torch.randn(8, 6, dtype=DOUBLE)
    exported = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    for size in (3, 11):
        x = torch.randn(size, 6, dtype=DOUBLE)
        assert torch.allclose(exported.module()(x), ensemble.predict(x).mean, atol=1e-14)


def test_copies_do_not_share_weights(ensemble):
    copies = ensemble.members()
    with torch.no_grad():
        copies[0].net[0].weight.zero_()
    assert float(ensemble.networks[0].net[0].weight.detach().abs().sum()) > 0


def test_out_of_bag_before_a_fit(ensemble):
    with pytest.raises(RuntimeError, match=r"after trainer\.fit"):
        _ = ensemble.out_of_bag
