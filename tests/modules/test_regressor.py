"""Regressor: scaled targets inside, the units of the data outside; alone and in an ensemble."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

import lightning_tricks as lt
from tests.modules.trainings import diabetes, loaders, mlp, plain, trainer
from tests.versions import TORCHMETRICS


def fitted_to(y, outputs=1, **options):
    module = lt.Regressor(nn.Identity(), standardize=False, **options)
    module.fit_statistics([(torch.zeros(len(y), outputs), y)])
    return module


@pytest.mark.parametrize("shape", [(50,), (50, 1), (50, 3)])
def test_values_go_in_and_out_in_their_units(shape):
    y = torch.randn(shape) * 300 + 7000
    module = fitted_to(y)
    mean, std = y.reshape(50, -1).mean(0), y.reshape(50, -1).std(0, correction=0)
    scaled = ((y.reshape(50, -1) - mean) / std).reshape(shape)
    torch.testing.assert_close(module.in_units(scaled), y, rtol=1e-4, atol=0.1)
    guess = torch.randn(shape)
    torch.testing.assert_close(module.loss(guess, y), F.mse_loss(guess, scaled), rtol=1e-3, atol=1e-3)


def test_the_losses_and_no_scaling():
    y, guess = torch.randn(20), torch.randn(20, 1)
    for name, truth in (("mse", F.mse_loss), ("mae", F.l1_loss), ("huber", F.smooth_l1_loss)):
        module = fitted_to(y, loss=name, scale_targets=False)
        torch.testing.assert_close(module.loss(guess, y), truth(guess[:, 0], y))
        assert torch.equal(module.in_units(guess), guess)
    with pytest.raises(ValueError, match="'mse', 'mae', 'huber'"):
        lt.Regressor(nn.Identity(), loss="l2")


def test_nothing_is_broadcast():
    with pytest.raises(ValueError, match=r"outputs of shape \[4, 2\] for targets \[4\]"):
        lt.Regressor(nn.Identity()).loss(torch.zeros(4, 2), torch.zeros(4))


def test_a_metric_of_classes_is_refused():
    with pytest.raises(ValueError, match="the metric 'Accuracy' is none for this task"):
        lt.Regressor(nn.Identity(), metrics=["Accuracy"])


@pytest.mark.parametrize("column", [True, False], ids=["targets [N, 1]", "targets [N]"])
@pytest.mark.parametrize("flat", [True, False], ids=["outputs [N]", "outputs [N, 1]"])
def test_the_doctor_calls_every_shape_healthy(column, flat):
    x, y = diabetes()[0].dataset.tensors
    train, _ = loaders(x, y[:, None] if column else y, 32)
    network = nn.Sequential(plain(10, 1), nn.Flatten(0)) if flat else plain(10, 1)
    diagnosis = lt.checkup(lt.Regressor(network), train, experiments="none")
    assert diagnosis.state == "healthy", str(diagnosis)


def test_it_learns_whatever_the_units():
    """Targets of a million and of a thousandth are the same training."""
    scores = []
    for scale in (1e6, 1e-3):
        torch.manual_seed(0)
        train, test = diabetes(scale=scale, offset=5 * scale)
        module, fitted = lt.Regressor(plain(10, 1)), trainer(max_epochs=8)
        fitted.fit(module, train, test)
        scores.append(float(fitted.callback_metrics["val_r2_score"]))
        x, y = test.dataset.tensors
        error = float((module.predict(x).squeeze(1) - y).abs().mean())
        assert float(fitted.callback_metrics["val_mean_absolute_error"]) == pytest.approx(error, rel=1e-4)
    assert scores[0] > 0.35
    assert scores[0] == pytest.approx(scores[1], abs=1e-2)


def test_checkpoints_go_both_ways(tmp_path):
    train, test = diabetes(offset=1e4)
    module, fitted = lt.Regressor(mlp(10, 1), loss="huber"), trainer(max_epochs=1)
    fitted.fit(module, train, test)
    fitted.save_checkpoint(tmp_path / "model.ckpt")
    loaded = lt.Regressor.load_from_checkpoint(tmp_path / "model.ckpt")
    x = test.dataset.tensors[0]
    assert torch.equal(loaded.predict(x), module.predict(x))
    assert loaded.loss_name == "huber"


@pytest.mark.filterwarnings("ignore:.*have no out-of-bag")
@pytest.mark.parametrize("backend", ["vmap", "loop"])
def test_an_ensemble_predicts_in_the_units_of_the_data(backend):
    train, test = diabetes(offset=1e4)
    ensemble = lt.BaggingEnsemble(lambda: lt.Regressor(plain(10, 1)), 4, task="regression", backend=backend)
    fitted = trainer(max_epochs=8)
    fitted.fit(ensemble, lt.BootstrapDataModule(train.dataset, num_members=4, batch_size=32, max_samples=0.5))
    assert ensemble.used_backend == backend
    x, y = test.dataset.tensors
    found = ensemble.predict(x)
    single = torch.stack([network.predict(x) for network in ensemble.networks])
    torch.testing.assert_close(found.members, single)
    assert float(((found.mean.squeeze(-1) - y) ** 2).mean()) < float(y.var())
    assert ensemble.out_of_bag.score > 0.2
    torch.testing.assert_close(ensemble.as_module()(x), found.mean)


def test_monte_carlo_dropout_too():
    x, y = torch.randn(100, 3), torch.randn(100) + 500
    module = lt.Regressor(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)))
    module.fit_statistics([(x, y)])
    found = lt.MonteCarloDropout(module, 4, task="regression").predict(x)
    assert 480 < float(found.mean.mean()) < 520


def test_the_doctor_calls_the_defaults_healthy():
    train, test = diabetes()
    doctor = lt.TrainingDoctor(on_problem="log", report=False)
    trainer(doctor, max_epochs=15, log_every_n_steps=10).fit(lt.Regressor(plain(10, 1, 64)), train, test)
    assert doctor.diagnosis.state == "healthy", str(doctor.diagnosis)


def test_several_values_at_once():
    x = torch.randn(200, 3)
    y = torch.stack([x[:, 0] * 1000, x[:, 1] + 5], 1)
    train, test = loaders(x, y)
    # the R2Score of torchmetrics 1.4 has to be told how many values there are
    options = {"metrics": ["MeanAbsoluteError"]} if TORCHMETRICS < (1, 5) else {}
    module, fitted = lt.Regressor(plain(3, 2), learning_rate=0.01, **options), trainer(max_epochs=15)
    fitted.fit(module, train, test)
    inside, truth = TensorDataset(*test.dataset.tensors).tensors
    error = (module.predict(inside) - truth).abs().mean(0) / truth.std(0)
    assert float(error.max()) < 0.3
