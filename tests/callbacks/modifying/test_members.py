"""Callbacks that change a network, on the members of an ensemble."""

import lightning.pytorch as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import lightning_tricks as lt
import lightning_tricks.ensemble as le
from lightning_tricks.callbacks.modifying.members import with_batch, with_batches
from tests.ensemble.trainings import Plain, data, fit


def deep():
    return nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 3)).double()


class Recorder(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not hasattr(self, "batch"):
            self.batch = batch
            self.weights = [{k: v.clone() for k, v in one.state_dict().items()} for one in pl_module.networks]


@pytest.mark.parametrize("backend", ["vmap", "loop"])
def test_each_member_is_scaled_by_its_own_batch(backend):
    callback, recorder = lt.InitializeWeights("lsuv"), Recorder()
    fit(lambda: Plain(deep()), backend, callbacks=[callback, recorder], max_epochs=1)
    for number, weights in enumerate(recorder.weights):
        member = Plain(deep())
        member.load_state_dict(weights)
        x = recorder.batch[0][number]
        for layer in member.net:
            x = layer(x)
            if isinstance(layer, nn.Linear):
                assert float(x.detach().std(correction=0)) == pytest.approx(1.0, abs=0.02)
    layers = [entry.layer for entry in callback.report.changed]
    assert {f"networks.{number}.net.2" for number in range(3)} <= set(layers)
    assert not torch.equal(recorder.weights[0]["net.2.weight"], recorder.weights[1]["net.2.weight"])


def test_members_draw_the_same_wherever_they_are():
    recorders = []
    for backend in ("vmap", "loop"):
        recorders.append(Recorder())
        callbacks = [lt.InitializeWeights("lecun_normal"), recorders[-1]]
        fit(lambda: Plain(deep()), backend, callbacks=callbacks, max_epochs=1)
    one, two = (recorder.weights for recorder in recorders)
    for a, b in zip(one, two, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    weights = [member["net.2.weight"] for member in one]
    assert not torch.equal(weights[0], weights[1])
    assert float(weights[0].std()) == pytest.approx(40**-0.5, rel=0.1)


class Normalised(Plain):
    def __init__(self):
        super().__init__(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3)).double())


@pytest.mark.parametrize("backend", ["vmap", "loop"])
@pytest.mark.parametrize("monitor", [None, "loss"])
def test_statistics_are_those_of_each_members_own_draws(backend, monitor):
    bagging = {} if monitor is None else {"monitor": monitor, "patience": 1, "mode": "max"}
    callback = lt.PreciseBatchNorm()
    ensemble, _ = fit(Normalised, backend, callbacks=[callback], bagging=bagging)
    x, sets = data().tensors[0], le.bootstrap(data(), 3, 2)
    for member, draws in zip(ensemble.networks, sets.indices, strict=True):
        torch.testing.assert_close(member.net[0].running_mean, x[draws].mean(0))
        torch.testing.assert_close(member.net[0].running_var, x[draws].var(0))
    assert [entry.layer for entry in callback.report.changed] == [f"networks.{k}.net.0" for k in range(3)]


def test_the_training_goes_on_as_without_it_also_amid_an_epoch():
    options = {"val_check_interval": 1, "val": data(20, seed=9), "max_epochs": 2}
    with_it = fit(Validated, "vmap", callbacks=[lt.PreciseBatchNorm()], **options)[0]
    without = fit(Validated, "vmap", **options)[0]
    for one, two in zip(with_it.parameters(), without.parameters(), strict=True):
        assert torch.equal(one, two)


class Validated(Normalised):
    def validation_step(self, batch, batch_idx):
        self.log("val", self(batch[0]).mean())


def test_batches_of_another_loader():
    ensemble = le.BaggingEnsemble(Normalised, 3, task="classification")
    batches = [(torch.arange(6.0).view(3, 2, 1), "other")]
    for number, part in enumerate(with_batches(ensemble, batches)):
        ((x, other),) = list(part.data)
        assert torch.equal(x, batches[0][0][number])
        assert other == "other"
    assert [part.prefix for part in with_batch(ensemble, batches[0])] == [f"networks.{k}." for k in range(3)]


def test_members_spread_over_processes_are_refused():
    class Two:
        world_size = 2

    ensemble = le.BaggingEnsemble(Normalised, 2, task="classification", parallel="members")
    with pytest.raises(ValueError, match='with parallel="members" each has other members'):
        lt.PreciseBatchNorm().on_fit_start(Two(), ensemble)


def test_any_other_module_is_one_network():
    (part,) = with_batches(nn.Identity(), loader := DataLoader([1]))
    assert (part.data, part.number, part.prefix) == (loader, None, "")
