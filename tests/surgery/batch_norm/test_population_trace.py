"""The pass over the data: what it looks at, and that it leaves no trace."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from lightning_tricks.init.report import Report
from lightning_tricks.surgery.batch_norm.population import tracked_batch_norms, update_population_statistics
from tests.surgery.batch_norm.test_population import assert_unchanged, draw, exact, network, snapshot


@pytest.mark.parametrize("consistent", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_restores_everything(consistent, error):
    model = network()
    model(draw(8, 2, 8, 8))
    model.train()
    before = snapshot(model)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()

    def loader():
        yield draw(8, 2, 8, 8)
        torch.rand(3), random.random(), np.random.rand()
        raise error("the disk is gone")

    class Loader:
        def __iter__(self):
            return loader()

    with pytest.raises(error, match="the disk is gone"):
        update_population_statistics(model, Loader(), consistent=consistent)
    assert_unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    assert (np.random.get_state()[1] == state[2]).all()


def test_an_exception_in_a_late_layer_of_a_consistent_pass_takes_the_early_ones_back():
    model = network()
    before = snapshot(model)
    calls = []

    def fails_at_last(module, args):
        calls.append(model[1].running_mean.any().item())
        if len(calls) == 3:
            raise ZeroDivisionError

    handle = model[7].register_forward_pre_hook(fails_at_last)
    with pytest.raises(ZeroDivisionError):
        update_population_statistics(model, [draw(8, 2, 8, 8)] * 2, consistent=True)
    handle.remove()
    assert calls == [False, True, True]  # by then the first layer had its new statistics
    assert_unchanged(model, before)


def test_success_leaves_no_trace_but_the_statistics():
    model = network()
    before = snapshot(model)
    state = torch.get_rng_state()
    loader = torch.utils.data.DataLoader(draw(24, 2, 8, 8), batch_size=8, shuffle=True)
    assert update_population_statistics(model, loader) is model
    after = snapshot(model)
    assert after[1:] == before[1:]
    changed = {key for key, value in after[0].items() if not torch.equal(value, before[0][key])}
    assert changed == {f"{i}.running_{what}" for i in (1, 5, 8) for what in ("mean", "var")}
    assert torch.equal(torch.get_rng_state(), state)


def test_frozen_layers_are_kept():
    model = nn.Sequential(*[nn.BatchNorm1d(3) for _ in range(5)])
    model[1].eval()
    model[2].track_running_stats = False
    model[3].momentum = 0.0
    assert list(tracked_batch_norms(model)) == ["0", "4"]
    for layer in model:
        layer.running_mean.fill_(0.5)
    report = Report()
    update_population_statistics(model, [draw(16, 3)], report=report)
    assert [bool(layer.running_mean.eq(0.5).all()) for layer in model] == [False, True, True, True, False]
    assert [entry.layer for entry in report.left] == ["1", "2", "3"]
    assert model[2].track_running_stats is False


def test_layers_by_glob_and_by_name():
    model = network()
    update_population_statistics(model, [draw(8, 2, 8, 8)], layers=["5", "8*"])
    assert model[1].running_mean.eq(0).all()
    assert not model[5].running_mean.eq(0).any()
    assert not model[8].running_mean.eq(0).any()


class OwnNorm(nn.BatchNorm2d):
    pass


def test_only_a_batch_norm_of_its_own_kind_is_in_training_mode():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), OwnNorm(3)).train()
    modes = {}
    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda m, _, name=name: modes.__setitem__(name, m.training))
    update_population_statistics(model, [draw(8, 2, 8, 8)])
    assert {name for name, training in modes.items() if training} == {"3"}  # another's forward may ask for the mode


def test_each_batch_is_normalised_by_its_own_statistics():
    batch, outputs = draw(8, 2, 8, 8), {"own": [], "torch's": []}
    for name, seen in outputs.items():
        model = network()
        norms = [module for module in model.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
        for norm in norms:
            norm.register_forward_hook(lambda *args, seen=seen: seen.append(args[2].detach()))
        if name == "own":
            buffers = dict(model.named_buffers())
            update_population_statistics(model, [batch])
            assert all(buffers[key] is buffer for key, buffer in model.named_buffers())
        else:
            for module in model.eval().modules():
                module.training = module in norms
            model(batch)
    assert len(outputs["own"]) == 3
    for own, torchs in zip(*outputs.values(), strict=True):
        torch.testing.assert_close(own, torchs)


def test_the_train_mode_of_a_model_is_not_called():
    class Merging(nn.Sequential):
        def train(self, mode=True):
            raise AssertionError("a side effect")

    update_population_statistics(Merging(nn.BatchNorm1d(3)), [draw(8, 3)])


def test_num_samples_and_batch_formats():
    batches = [{"image": draw(4, 2, 8, 8, seed=s), "label": 1} for s in range(10)]
    report = Report()
    update_population_statistics(network(), batches, lambda m, b: m(b["image"]), num_samples=10, report=report)
    assert {entry.values["batches"] for entry in report.changed} == {3}
    report = Report()
    pairs = [(draw(4, 2, 8, 8), torch.zeros(4))] * 3
    update_population_statistics(network(), pairs, report=report)
    assert report.changed[0].values == {"values": 12 * 36, "batches": 3}
    with pytest.raises(TypeError, match="mappings; pass forward"):
        update_population_statistics(network(), batches)


def test_a_compiled_model_is_seen():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    compiled = torch.compile(model, backend="eager")
    compiled(draw(8, 3))
    compiled.eval()
    data = draw(30, 3)
    update_population_statistics(compiled, data.split(10))
    mean, _ = exact(model[0](data).detach())
    torch.testing.assert_close(model[1].running_mean.double(), mean, rtol=1e-5, atol=1e-6)
