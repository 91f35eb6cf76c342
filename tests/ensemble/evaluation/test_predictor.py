"""K members as one predictor: each in eval mode, as one module, as copies."""

import copy

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_tricks.ensemble import BaggingEnsemble
from tests.ensemble.trainings import DOUBLE, Plain, network, trainer


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


def test_the_trainer_predicts(ensemble):
    x = torch.randn(8, 6, dtype=DOUBLE)
    expected = ensemble.predict(x)
    one = trainer().predict(ensemble, DataLoader(TensorDataset(x), 5))
    assert torch.allclose(torch.cat([prediction.members for prediction in one], 1), expected.members, atol=1e-14)
    two = trainer().predict(ensemble, [DataLoader(TensorDataset(x), 8), DataLoader(TensorDataset(x[:3]), 3)])
    assert torch.allclose(two[0][0].mean, expected.mean, atol=1e-14)
    assert torch.allclose(two[1][0].mean, expected.mean[:3], atol=1e-14)


def test_a_prediction_moves(ensemble):
    prediction = ensemble.predict(torch.randn(2, 6, dtype=DOUBLE)).to(torch.float32)
    assert prediction.members.dtype == torch.float32
    assert prediction.entropy.shape == (2,)


def traced(module):
    return torch.jit.trace(module, torch.zeros(3, 6, dtype=DOUBLE))


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("compiled", [torch.jit.script, traced], ids=["script", "trace"])
def test_as_module_scripts_and_traces(task, compiled):
    ensemble = BaggingEnsemble(lambda: Plain(network(0.5)), 3, task=task)
    module, x = ensemble.as_module(), torch.randn(5, 6, dtype=DOUBLE)
    assert torch.allclose(compiled(module)(x), ensemble.predict(x).mean, atol=1e-14)
