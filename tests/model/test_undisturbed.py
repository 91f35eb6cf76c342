"""A block in which a model runs and nothing of it stays."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from lightning_tricks.model.undisturbed import undisturbed


class Stubborn(nn.Module):
    """Its train() does more than set flags, so it must not be called."""

    def train(self, mode=True):
        raise AssertionError("train() was called")


def test_eval_without_gradients_and_all_flags_back():
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval(), nn.Linear(2, 2), Stubborn())
    flags = [module.training for module in model.modules()]
    with undisturbed(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == flags
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("fails", [False, True])
def test_every_stream_of_random_numbers_goes_on(fails):
    def draw():
        return torch.rand(1).item(), np.random.rand(), random.random()

    def seed():
        torch.manual_seed(1), np.random.seed(1), random.seed(1)

    seed()
    expected = draw()
    seed()
    try:
        with undisturbed(nn.Identity()):
            draw()
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert draw() == expected


def test_buffers_come_back_after_an_error_and_stay_after_success():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    with undisturbed(model, [model[0]]):
        model[0].running_mean.fill_(3.0)
    assert (model[0].running_mean == 3).all()

    def interrupted():
        with undisturbed(model, [model[0]]):
            model[0].running_mean.fill_(7.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (model[0].running_mean == 3).all()
    assert all(module.training for module in model.modules())
