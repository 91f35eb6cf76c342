"""Out-of-bag scores against loops over patterns, and against what theory says of them."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from lightning_tricks.ensemble import BaggingEnsemble, BootstrapDataModule
from tests.ensemble.trainings import DOUBLE, Plain, data, fit, trainer


class Regression(Plain):
    def __init__(self):
        super().__init__(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).double())

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.mse_loss(self(x).squeeze(-1), y)


def regression(size=60):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(size, 6, generator=generator, dtype=DOUBLE)
    return TensorDataset(x, x[:, 0] + 0.1 * torch.randn(size, generator=generator, dtype=DOUBLE))


@pytest.mark.filterwarnings("ignore:.*have no out-of-bag prediction")
def test_classification_against_a_loop():
    ensemble, run = fit(Plain, "loop", 4)
    found, unseen = ensemble.out_of_bag, run.datamodule.sets.out_of_bag
    x, y = data().tensors
    members = ensemble.predict(x).members
    right, losses, covered = 0, 0.0, 0
    for n in range(len(x)):
        own = [members[k, n] for k in range(4) if unseen[k, n]]
        if own:
            mean = sum(own) / len(own)
            covered += 1
            right += int(mean.argmax() == y[n])
            losses -= float(mean[y[n]].log())
            assert torch.allclose(found.prediction[n], mean)
        else:
            assert bool(found.prediction[n].isnan().all())
    assert 0 < covered < len(x)
    assert found.coverage == pytest.approx(covered / len(x))
    assert found.score == pytest.approx(right / covered)
    assert found.loss == pytest.approx(losses / covered)
    parts = found.decomposition
    assert parts.ensemble_error == pytest.approx(parts.mean_member_error - parts.ambiguity, abs=1e-12)


@pytest.mark.filterwarnings("ignore:.*have no out-of-bag prediction")
def test_regression_against_a_loop():
    ensemble = BaggingEnsemble(Regression, 5, task="regression", backend="loop")
    module = BootstrapDataModule(regression(), 5, 20)
    trainer(max_epochs=8).fit(ensemble, module)
    found, unseen = ensemble.out_of_bag, module.sets.out_of_bag
    x, y = regression().tensors
    members = ensemble.predict(x).members.squeeze(-1)
    rows = [n for n in range(60) if unseen[:, n].any()]
    mean = torch.stack([members[unseen[:, n], n].mean() for n in rows])
    truth = y[rows]
    assert found.loss == pytest.approx(float((mean - truth).square().mean()))
    assert found.score == pytest.approx(1 - float((mean - truth).square().sum() / truth.var() / (len(rows) - 1)))
    for k in range(5):
        error = (members[k, unseen[k]] - y[unseen[k]]).square().mean()
        assert float(found.decomposition.member_errors[k]) == pytest.approx(float(error))
    parts = found.decomposition
    assert parts.ensemble_error == pytest.approx(parts.mean_member_error - parts.ambiguity, abs=1e-12)


def test_coin_flips_cannot_be_learned():
    """Accuracy on random labels: one half, however well the labels are learned by heart."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(800, 6, generator=generator, dtype=DOUBLE)
    dataset = TensorDataset(x, torch.randint(2, (800,), generator=generator))

    class Coin(Plain):
        def __init__(self):
            super().__init__(nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 2)).double())

    ensemble = BaggingEnsemble(Coin, 16, task="classification", backend="vmap")
    trainer(max_epochs=15).fit(ensemble, BootstrapDataModule(dataset, 16, 64))
    assert ensemble.out_of_bag.score == pytest.approx(0.5, abs=0.05)
    learned = float((ensemble.predict(x).mean.argmax(1) == dataset.tensors[1]).double().mean())
    assert learned > 0.6


def test_nothing_out_of_bag():
    ensemble = BaggingEnsemble(Plain, 2, task="classification", backend="loop")
    trainer(max_epochs=1).fit(ensemble, BootstrapDataModule(data(), 2, bootstrap=False))
    with pytest.raises(ValueError, match="every member saw every pattern"):
        _ = ensemble.out_of_bag
    watched = BaggingEnsemble(Plain, 2, task="classification", monitor="out_of_bag", backend="loop")
    with pytest.raises(ValueError, match="member 0 saw every pattern"):
        trainer(max_epochs=1).fit(watched, BootstrapDataModule(data(), 2, bootstrap=False))


@pytest.mark.parametrize(("num_members", "complete"), [(3, False), (40, True)])
def test_patterns_without_a_prediction_are_told_once(num_members, complete):
    ensemble = BaggingEnsemble(Plain, num_members, task="classification", backend="loop")
    module = BootstrapDataModule(data(), num_members, 20)
    trainer(max_epochs=0).fit(ensemble, module)
    missing = int((~module.sets.out_of_bag.any(0)).sum())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = ensemble.out_of_bag
        assert ensemble.out_of_bag is found
    assert found.coverage == pytest.approx(1 - missing / 40)
    assert complete == (missing == 0)
    words = [str(warning.message) for warning in told if "out-of-bag" in str(warning.message)]
    assert len(words) == (not complete)
    assert complete or words[0].startswith(f"{missing} of 40 patterns are in the sets of all 3 members")
