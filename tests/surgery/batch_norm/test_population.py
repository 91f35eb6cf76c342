"""Population statistics against the data themselves, torch's update_bn and fvcore's precise batch norm."""

import copy
import warnings

import pytest
import torch
from torch import nn

from lightning_tricks.init.report import NoEffectWarning, Report
from lightning_tricks.nn import BatchRenorm1d, GhostBatchNorm1d, GhostBatchNorm2d, MeanOnlyBatchNorm1d
from lightning_tricks.surgery.batch_norm.population import update_population_statistics


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(4, 3, 3),
        nn.BatchNorm2d(3),
        nn.Flatten(),
        nn.Linear(48, 5),
        nn.BatchNorm1d(5),
    )


def snapshot(model):
    flags = [
        (m.training, getattr(m, "track_running_stats", None), getattr(m, "momentum", None)) for m in model.modules()
    ]
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]
    return {key: value.clone() for key, value in model.state_dict().items()}, flags, hooks


def assert_unchanged(model, before):
    state, flags, hooks = snapshot(model)
    assert flags == before[1]
    assert hooks == before[2]
    for key, value in state.items():
        assert torch.equal(value, before[0][key]), key


def exact(x):
    """Mean and unbiased variance of all values of each channel, in float64."""
    values = x.double().movedim(1, 0).flatten(1)
    return values.mean(1), values.var(1)


def test_an_uneven_last_batch():
    data = torch.cat([draw(500, 4), draw(2, 4, seed=1) * 3 + 10])
    model = nn.Sequential(nn.BatchNorm1d(4))
    update_population_statistics(model, data.split(100))
    mean, variance = exact(data)
    torch.testing.assert_close(model[0].running_mean.double(), mean, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(model[0].running_var.double(), variance, rtol=1e-6, atol=0)
    theirs = nn.Sequential(nn.BatchNorm1d(4))
    torch.optim.swa_utils.update_bn(data.split(100), theirs)  # gives the two samples the weight of a hundred
    assert ((theirs[0].running_mean - mean) / variance.sqrt()).abs().max() > 0.2


def test_sorted_data():
    data = draw(1000, 3).sort(0).values
    model, theirs = nn.Sequential(nn.BatchNorm1d(3)), nn.Sequential(nn.BatchNorm1d(3))
    update_population_statistics(model, data.split(20))
    torch.testing.assert_close(model[0].running_var.double(), exact(data)[1], rtol=1e-6, atol=0)
    torch.optim.swa_utils.update_bn(data.split(20), theirs)
    assert (theirs[0].running_var < 0.1 * model[0].running_var).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("shape", [(64, 3), (16384, 3), (16, 3, 6, 6), (64, 3, 48, 48), (8, 3, 4, 4, 4)], ids=str)
def test_a_mean_of_a_thousand_standard_deviations(shape, layout):
    data = torch.cat([draw(*shape, seed=seed) * 2 + 2000 for seed in range(5)])
    data = data.contiguous(memory_format=layout) if len(shape) == 4 else data
    model = nn.Sequential({2: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)](3))
    update_population_statistics(model, data.split(shape[0]))
    mean, variance = exact(data)
    assert (model[0].running_var / variance - 1).abs().max() <= 1e-5
    assert (model[0].running_mean / mean - 1).abs().max() <= 1e-6


def test_a_layer_that_is_not_reached_is_left_and_named():
    model = nn.ModuleDict({"used": nn.BatchNorm1d(3), "idle": nn.BatchNorm1d(3)})
    model["idle"].running_mean.fill_(7)
    report = Report()
    with pytest.warns(UserWarning, match="not reached by the data, .*: idle"):
        update_population_statistics(model, [draw(8, 3)], lambda m, x: m["used"](x), report=report)
    assert model["idle"].running_mean.eq(7).all()
    assert model["idle"].running_var.eq(1).all()
    assert [(e.layer, e.what) for e in report.left] == [("idle", "not reached by the data")]
    assert [(e.layer, e.values) for e in report.changed] == [("used", {"values": 8, "batches": 1})]


def test_one_pass_equals_torch_and_fvcore_on_even_batches():
    precise_bn = pytest.importorskip("fvcore.nn.precise_bn", reason="fvcore is an oracle and is not installed")
    batches = [draw(8, 2, 8, 8, seed=seed) for seed in range(5)]
    pooled, paper, fvcore, swa = (copy.deepcopy(network()).eval() for _ in range(4))
    update_population_statistics(pooled, batches)
    update_population_statistics(paper, batches, estimator="paper")
    for model in (fvcore, swa):
        model[3].p = 0.0
    fvcore.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        precise_bn.update_bn_stats(fvcore, batches, len(batches))
    torch.optim.swa_utils.update_bn(batches, swa)
    for index, values in ((1, 5 * 8 * 36), (5, 5 * 8 * 16), (8, 5 * 8)):
        bessel = values / (values - 1)  # fvcore's pooled variance is the biased one
        torch.testing.assert_close(pooled[index].running_mean, fvcore[index].running_mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(pooled[index].running_var, bessel * fvcore[index].running_var, rtol=1e-5, atol=0)
        torch.testing.assert_close(paper[index].running_mean, swa[index].running_mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(paper[index].running_var, swa[index].running_var, rtol=1e-5, atol=0)


def test_the_paper_s_estimator_to_the_letter():
    batches = [draw(5, 3), draw(9, 3, seed=1) + 2]
    model = nn.Sequential(nn.BatchNorm1d(3))
    update_population_statistics(model, batches, estimator="paper")
    mean = torch.stack([b.mean(0) for b in batches]).mean(0)
    variance = torch.stack([len(b) / (len(b) - 1) * b.var(0, unbiased=False) for b in batches]).mean(0)
    torch.testing.assert_close(model[0].running_mean, mean)
    torch.testing.assert_close(model[0].running_var, variance)


def test_consistent_statistics_are_those_met_in_eval():
    model = network()
    batches = list(draw(41, 2, 8, 8).split(9))
    assert len(batches[-1]) == 5
    update_population_statistics(model, batches, consistent=True)
    met = {}
    for name in ("1", "5", "8"):
        hook = lambda _, args, name=name: met.setdefault(name, []).append(args[0])  # noqa: E731
        model.get_submodule(name).register_forward_pre_hook(hook)
    model.eval()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for name, inputs in met.items():
        mean, variance = exact(torch.cat(inputs))
        layer = model.get_submodule(name)
        torch.testing.assert_close(layer.running_mean.double(), mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(layer.running_var.double(), variance, rtol=1e-5, atol=0)


def test_consistent_takes_batches_of_one_and_layers_out_of_order():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first = nn.BatchNorm1d(3), nn.BatchNorm1d(3)

        def forward(self, x):
            return self.second(self.first(x).exp())

    model, data = Backwards(), draw(7, 3) * 2 + 1
    update_population_statistics(model, data.split(1), consistent=True)
    mean, variance = exact(data)
    torch.testing.assert_close(model.first.running_var.double(), variance, rtol=1e-6, atol=0)
    normalised = ((data - mean) / (variance + 1e-5).sqrt()).exp()
    torch.testing.assert_close(model.second.running_mean.double(), exact(normalised)[0], rtol=1e-5, atol=0)


class Shared(nn.Module):
    def __init__(self, chained, gain=0.3):
        super().__init__()
        self.norm, self.chained, self.gain = nn.BatchNorm1d(3), chained, gain

    def forward(self, x):
        return self.norm(self.gain * self.norm(x) if self.chained else x * 3 + 1) + self.norm(x)


def test_a_shared_layer_pools_all_its_calls():
    data = draw(30, 3)
    both = exact(torch.cat([data, data * 3 + 1]))
    for consistent in (False, True):
        model = Shared(chained=False)
        update_population_statistics(model, data.split(10), consistent=consistent)
        torch.testing.assert_close(model.norm.running_mean.double(), both[0], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(model.norm.running_var.double(), both[1], rtol=1e-6, atol=0)


def test_a_layer_that_feeds_itself_settles_or_says_so():
    model, met = Shared(chained=True), []
    update_population_statistics(model, [draw(30, 3)], consistent=True)
    model.norm.register_forward_pre_hook(lambda _, args: met.append(args[0]))
    model.eval()(draw(30, 3))
    torch.testing.assert_close(model.norm.running_var.double(), exact(torch.cat(met))[1], rtol=1e-4, atol=0)
    diverging = Shared(chained=True, gain=1e4)
    before = snapshot(diverging)
    with pytest.raises(RuntimeError, match=r"'norm' is called 3 times .* did not settle"):
        update_population_statistics(diverging, [draw(30, 3)], consistent=True)
    assert_unchanged(diverging, before)


@pytest.mark.parametrize("cls", [GhostBatchNorm1d, BatchRenorm1d, MeanOnlyBatchNorm1d])
def test_our_own_batch_norms(cls):
    model = nn.Sequential(cls(3))
    data = draw(50, 3) * 2 + 5
    update_population_statistics(model, data.split(20))
    mean, variance = exact(data)
    torch.testing.assert_close(model[0].running_mean.double(), mean, rtol=1e-6, atol=0)
    if cls is not MeanOnlyBatchNorm1d:
        torch.testing.assert_close(model[0].running_var.double(), variance, rtol=1e-6, atol=0)
    assert model[0].num_batches_tracked == 0


def test_half_precision():
    data = (draw(400, 3) + 100).bfloat16()
    model = nn.Sequential(GhostBatchNorm1d(3)).bfloat16()
    update_population_statistics(model, data.split(50))
    mean, variance = exact(data)
    torch.testing.assert_close(model[0].running_mean.double(), mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(model[0].running_var.double(), variance, rtol=1e-5, atol=0)


def test_a_batch_of_one_names_the_layer():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"layer '1' met a batch of shape \(1, 3\).* drop_last=True"):
        update_population_statistics(model, draw(9, 3).split(4))
    with pytest.raises(ValueError, match="one value per channel in all the data"):
        update_population_statistics(model, [draw(1, 3)], consistent=True)
    assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loader": []}, "the loader is empty"),
        ({"loader": [], "consistent": True}, "the loader is empty"),
        ({"loader": iter([draw(8, 3)]), "consistent": True}, "pass a DataLoader or a list, not an iterator"),
        ({"loader": [draw(8, 3)], "num_samples": 0}, "num_samples must be at least 1"),
        ({"loader": [draw(8, 3)], "estimator": "average"}, "estimator must be one of pooled, paper, got 'average'"),
    ],
)
def test_errors_say_what_to_do(arguments, message):
    model = nn.Sequential(nn.BatchNorm1d(3))
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        update_population_statistics(model, **arguments)
    assert_unchanged(model, before)


def test_lazy_layers_and_models_without_batch_norm():
    with pytest.raises(ValueError, match="layer '0' is not initialised yet"):
        update_population_statistics(nn.Sequential(nn.LazyBatchNorm1d()), [draw(8, 3)])
    with pytest.warns(NoEffectWarning, match="no batch-norm layer"):
        update_population_statistics(nn.Linear(3, 3), [draw(8, 3)])


def test_it_closes_the_train_evaluation_gap_of_ghost_batches():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), GhostBatchNorm2d(4, ghost_size=4))
    data = draw(64, 2, 8, 8) * 2 + 1
    update_population_statistics(model, data.split(16))
    y = model.eval()(data)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.var((0, 2, 3)), torch.ones(4), rtol=1e-3, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_agrees_with_the_cpu():
    batches = [draw(8, 2, 8, 8, seed=seed) for seed in range(3)]
    for consistent in (False, True):
        model, twin = network(), network().cuda()
        update_population_statistics(model, batches, consistent=consistent)
        update_population_statistics(twin, batches, consistent=consistent)  # the batches are moved to the model
        torch.testing.assert_close(twin.cpu().state_dict(), model.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("consistent", [False, True])
def test_what_is_no_number_names_layer_and_batch(value, consistent):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4))
    before = copy.deepcopy(model.state_dict())
    batches = [torch.randn(6, 3) for _ in range(5)]
    batches[3][2, 1] = value
    with pytest.raises(ValueError, match=r"layer '1' met NaN or Inf in batch 3 \(counted from 0\); nothing"):
        update_population_statistics(model, batches, consistent=consistent)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_values_too_large_to_square():
    model = nn.Sequential(nn.BatchNorm1d(1))
    with pytest.raises(ValueError, match="layer '0' met values too large for their squares"):
        update_population_statistics(model, [torch.tensor([[-1e30], [1e30]])])
