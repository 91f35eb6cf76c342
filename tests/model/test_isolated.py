"""An isolated run: whatever a forward does, the model and all random numbers are as before."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import lightning_tricks as lt
from lightning_tricks.model.isolated import isolated, keep_random_numbers, keep_training_flags
from lightning_tricks.nn import MeanOnlyBatchNorm1d


class Busy(nn.Module):
    """Writes buffers in place and anew, draws random numbers, and drops."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.norm, self.drop = nn.BatchNorm1d(4), nn.Dropout(0.9)
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x):
        self.count += 1
        x = self.drop(self.norm(self.layer(x))) + torch.rand(4)
        self.last = x.mean(0)
        return x


class Stubborn(nn.Module):
    """Its train() does more than set flags, so it must not be called."""

    def train(self, mode=True):
        raise AssertionError("train() was called")


class Augmenting(nn.Module):
    """Draws from Python's and NumPy's streams in its forward."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.second(torch.relu(self.first(x * (0.9 + 0.1 * random.random()) + 0.1 * np.random.rand())))


def draw():
    return torch.rand(1).item(), np.random.rand(), random.random()


def seed():
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_restored(fails):
    torch.manual_seed(0)
    model = Busy()
    model.drop.eval()
    buffers = dict(model.named_buffers())
    values = {key: buffer.clone() for key, buffer in buffers.items()}
    flags = [module.training for module in model.modules()]
    state, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    try:
        with isolated(model, norms_as_set=True, layer_by_layer=True):
            assert not model.training
            assert model.norm.training
            assert not torch.backends.mha.get_fastpath_enabled()
            assert not model(torch.randn(8, 4)).requires_grad
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert all(buffer is buffers[key] for key, buffer in model.named_buffers())
    assert all(torch.equal(buffer, values[key]) for key, buffer in model.named_buffers())
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert torch.is_grad_enabled()


def test_eval_without_gradients_and_all_flags_back():
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval(), nn.Linear(2, 2), Stubborn())
    flags = [module.training for module in model.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    with isolated(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        assert torch.backends.mha.get_fastpath_enabled() == fast
    assert [module.training for module in model.modules()] == flags
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("fails", [False, True])
def test_every_stream_of_random_numbers_goes_on(fails):
    seed()
    expected = draw()
    seed()
    try:
        with isolated(nn.Identity()):
            draw()
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert draw() == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda model, x: lt.init.initialize(model, "auto", x, generator=torch.Generator().manual_seed(0)),
        lambda model, x: lt.init.lsuv_(model, x),
        lambda model, x: lt.surgery.insert_batch_norm(model, x),
        lambda model, x: lt.surgery.update_population_statistics(
            lt.surgery.insert_batch_norm(model, x), [x, x], consistent=True
        ),
    ],
    ids=["initialize", "lsuv", "insert_batch_norm", "update_population_statistics"],
)
def test_a_forward_that_draws_moves_no_stream(change):
    model, x = Augmenting(), torch.randn(16, 4)
    seed()
    expected = draw()
    seed()
    change(model, x)
    assert draw() == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_streams_of_a_device_go_on():
    model = nn.Linear(1, 1, device="cuda")
    torch.cuda.manual_seed(1)
    expected = torch.rand(1, device="cuda")
    torch.cuda.manual_seed(1)
    with isolated(model):
        torch.rand(1, device="cuda")
    assert torch.equal(torch.rand(1, device="cuda"), expected)


def test_further_generators_go_on():
    generator = torch.Generator().manual_seed(3)
    expected = torch.rand(1, generator=torch.Generator().manual_seed(3))
    with keep_random_numbers([], [generator]):
        torch.rand(1, generator=generator)
    assert torch.equal(torch.rand(1, generator=generator), expected)


def test_updated_buffers_come_back_after_an_error_and_stay_after_success():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    with isolated(model, updated=[model[0]]):
        model[0].running_mean.fill_(3.0)
        model[1].running_mean.fill_(3.0)
    assert (model[0].running_mean == 3).all()
    assert (model[1].running_mean == 0).all()

    def interrupted():
        with isolated(model, updated=[model[0]]):
            model[0].running_mean.fill_(7.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (model[0].running_mean == 3).all()
    assert all(module.training for module in model.modules())


def test_lazy_buffers_are_left_out():
    model = nn.Sequential(nn.Linear(2, 2), nn.LazyBatchNorm1d())
    with isolated(model):
        model[0](torch.ones(1, 2))
    assert not model[1].has_uninitialized_params() or model[1].training


def test_every_kind_of_batch_norm_works_as_its_flag_says():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), MeanOnlyBatchNorm1d(4), nn.Linear(4, 2))
    model[1].running_mean.fill_(100.0)
    x = torch.randn(64, 4)
    lt.init.lsuv_(model, x)
    # What follows the norm was scaled by the batch's statistics: by the running ones it would not have std 1.
    assert float(model(x).detach().std()) == pytest.approx(1.0, abs=1e-4)


def test_flags_alone():
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    seed()
    with keep_training_flags(model):
        model.eval()
        first = torch.rand(1)
    assert [module.training for module in model] == [True, False]
    assert not torch.equal(torch.rand(1), first)


@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_a_compiled_model_is_heard(how):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 4))
    x = torch.randn(256, 8)
    if how == "wrapped":
        model = torch.compile(plain, backend="eager")
    else:
        model = plain
        model.compile(backend="eager")
    model(x)
    report = lt.init.Report()
    lt.init.initialize(model, "auto", x, report=report)
    assert report.changed[0].what.endswith("(gelu)")
    lt.init.lsuv_(model, x)
    assert float(model(x).detach().std(unbiased=False)) == pytest.approx(1.0, abs=1e-3)
