"""Members that need an optimiser each, or optimise by hand: against separate fits."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.ensemble.trainings import DOUBLE, Smooth, data, difference, fit, separate


def lbfgs(parameters):
    return torch.optim.LBFGS(parameters, lr=0.5, max_iter=3, line_search_fn="strong_wolfe")


def adafactor(parameters):
    return torch.optim.Adafactor(parameters, lr=0.05)


@pytest.mark.parametrize("optimizer", [lbfgs, adafactor])
def test_coupled_optimizers(optimizer):
    make = functools.partial(Smooth, optimizer)
    with pytest.warns(UserWarning, match="updates a parameter as a whole"):
        ensemble, run = fit(make)
    members, runs = separate(make)
    assert ensemble.used_backend == "loop"
    assert difference(ensemble.networks, members) < 1e-10
    assert run.global_step == runs[0].global_step


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_coupled_optimizers_accumulate_and_clip(algorithm):
    make = functools.partial(Smooth, adafactor)
    options = {"gradient_clip_val": 0.05, "gradient_clip_algorithm": algorithm, "accumulate_grad_batches": 2}
    ensemble, run = fit(make, "loop", **options)
    members, runs = separate(make, **options)
    assert difference(ensemble.networks, members) < 1e-10
    assert run.global_step == runs[0].global_step


class OnPlateau(Smooth):
    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self(x), y))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        plan = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.3)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plan, "monitor": "val_loss"}}


def test_learning_rates_fall_on_each_members_own_plateau():
    validation = data(20, seed=9)
    loader = torch.utils.data.DataLoader(validation, batch_size=16)
    options = {"max_epochs": 6, "num_sanity_val_steps": 0}
    ensemble, run = fit(OnPlateau, "loop", val=validation, **options)
    members, runs = separate(OnPlateau, val=loader, **options)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in run.optimizers]
    assert rates == [one.optimizers[0].param_groups[0]["lr"] for one in runs]
    assert min(rates) < 1.0
    assert difference(ensemble.networks, members) < 1e-10


def test_a_plateau_of_something_that_is_not_logged():
    with pytest.raises(ValueError, match="monitors 'val_loss', but the members logged loss in this epoch"):
        fit(OnPlateau, "loop")


class ByHand(Smooth):
    """Two optimisers, stepped in turn, each with its own schedule."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 3, dtype=DOUBLE)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        x, y = batch
        for optimizer in self.optimizers():
            loss = F.cross_entropy(self.head(self.net(x)), y)
            optimizer.zero_grad()
            self.manual_backward(loss)
            self.clip_gradients(optimizer, 0.5, "norm")
            optimizer.step()
        for plan in self.lr_schedulers():
            plan.step()
        self.log("loss", loss)

    def configure_optimizers(self):
        optimizers = [torch.optim.Adam(self.net.parameters(), 0.02), torch.optim.SGD(self.head.parameters(), 0.1)]
        return optimizers, [torch.optim.lr_scheduler.StepLR(one, 2, 0.5) for one in optimizers]


def test_manual_optimization():
    with pytest.warns(UserWarning, match="it optimises by hand"):
        ensemble, run = fit(ByHand)
    members, runs = separate(ByHand)
    assert difference(ensemble.networks, members) < 1e-10
    mean = sum(float(one.callback_metrics["loss"]) for one in runs) / 3
    assert float(run.callback_metrics["loss"]) == pytest.approx(mean)
    assert "optimizers" not in vars(ensemble.networks[0])
