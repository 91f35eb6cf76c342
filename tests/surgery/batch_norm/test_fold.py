"""Folding: the same outputs on every combination, or a refusal that names the layer."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lightning_tricks.init.report import NoEffectWarning, Report
from lightning_tricks.nn import BatchRenorm2d, GhostBatchNorm1d, MeanOnlyBatchNorm2d
from lightning_tricks.surgery.batch_norm.fold import fold_batch_norm
from lightning_tricks.surgery.batch_norm.normalized import ChannelPad, FoldedBatchNorm, NormalizedLayer

CONVOLUTIONS = [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
CHANNELS = 4


def randomize(model, seed=0):
    """Statistics and affine parameters that a trained network might have, none of them 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            for name, low, high in (("running_mean", -2, 2), ("running_var", 0.2, 3)):
                if isinstance(getattr(module, name, None), torch.Tensor):
                    getattr(module, name).uniform_(low, high, generator=generator)
            if hasattr(module, "running_mean"):
                for name, low, high in (("weight", 0.5, 1.5), ("bias", -1, 1)):
                    if getattr(module, name, None) is not None:
                        getattr(module, name).uniform_(low, high, generator=generator)
    return model.eval()


def difference(model, folded, x):
    with torch.no_grad():
        expected, got = model(x), folded(x)
    return ((got - expected).abs().max() / expected.abs().max()).item()


def fold(model, x, **kwargs):
    """The folded copy, its report, and the relative difference of its output."""
    report = Report()
    folded = fold_batch_norm(copy.deepcopy(model), report=report, **kwargs)
    return folded, report, difference(model, folded, x)


@pytest.mark.parametrize("cls", CONVOLUTIONS)
def test_every_convolution(cls):
    dims = int(cls.__name__[-2])
    transposed = cls.__name__.startswith("ConvT")
    x = torch.randn(3, CHANNELS, *[6, 5, 7][:dims])
    folded_count = refused_count = 0
    worst = 0.0
    geometries = [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "stride": 2, "dilation": 2},
        {"kernel_size": 1},
        {"kernel_size": 2, "padding": 1, "stride": 2},
    ]
    for groups, affine, first, bias, geometry in itertools.product(
        (1, 2, CHANNELS), (True, False), ("layer", "norm"), (True, False), geometries
    ):
        out = 8 if groups < CHANNELS else CHANNELS * 2
        layer = cls(CHANNELS, out, groups=groups, bias=bias, **geometry)
        norm = NORMS[dims](out if first == "layer" else CHANNELS, affine=affine)
        model = randomize(nn.Sequential(*((layer, norm) if first == "layer" else (norm, layer))))
        if transposed and first == "norm" and geometry["kernel_size"] > 1:
            report = Report()
            before = copy.deepcopy(model.state_dict())
            with pytest.warns(NoEffectWarning, match="0: .*transposed convolution"):
                fold_batch_norm(model, report=report)
            torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
            assert [entry.layer for entry in report.left] == ["0"]
            refused_count += 1
            continue
        folded, report, error = fold(model, x)
        assert error <= 1e-5, (groups, affine, first, bias, geometry)
        assert not any(isinstance(module, NORMS[dims]) for module in folded.modules())
        assert not report.left
        assert sum(p.numel() for p in folded.parameters()) == layer.weight.numel() + out
        folded_count += 1
        worst = max(worst, error)
    assert (folded_count, refused_count) == ((60, 36) if transposed else (96, 0))
    print(f"{cls.__name__}: {folded_count} folded, worst {worst:.1e}; {refused_count} refused")


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate", "circular"])
def test_other_paddings_repeat_values_and_need_no_padding_of_their_own(padding_mode):
    model = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1, padding_mode=padding_mode))
    folded, _, error = fold(randomize(model), torch.randn(2, 4, 6, 6))
    assert error <= 1e-5
    assert type(folded[0]) is FoldedBatchNorm


@pytest.mark.parametrize("padding", ["same", "valid", (2, 1)])
def test_zero_padding_becomes_padding_by_the_zero_behind_batch_norm(padding):
    model = randomize(nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, (5, 3), padding=padding)))
    folded, _, error = fold(model, torch.randn(2, 4, 6, 7))
    assert error <= 1e-5
    assert type(folded[0]) is (FoldedBatchNorm if padding == "valid" else ChannelPad)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("first", ["layer", "norm"])
def test_linear(first, bias, affine):
    layer, norm = nn.Linear(5, 7, bias=bias), nn.BatchNorm1d(7 if first == "layer" else 5, affine=affine)
    model = randomize(nn.Sequential(*((layer, norm) if first == "layer" else (norm, layer))))
    for batch in (None, torch.randn(2, 5)):
        folded, _, error = fold(model, torch.randn(4, 5), batch=batch)
        assert error <= 1e-5
        assert any(isinstance(module, FoldedBatchNorm) for module in folded)


def test_batch_norm_over_positions_is_not_taken_for_one_over_features():
    model = randomize(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)))
    x = torch.randn(4, 6, 6)  # the layer works on the last dimension, batch norm on dimension 1
    with pytest.warns(NoEffectWarning, match="normalises dimension 1 of 3-dimensional inputs"):
        fold_batch_norm(copy.deepcopy(model), batch=x)
    blind = fold_batch_norm(copy.deepcopy(model))
    with pytest.raises(ValueError, match=r"folded into '0' for 2-dimensional inputs .* \[4, 6, 6\]"):
        blind(x)


def test_both_sides_of_one_layer_and_chains():
    model = randomize(
        nn.Sequential(
            nn.BatchNorm2d(3),
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Identity(),
            nn.BatchNorm2d(4),
            nn.Dropout(0.5),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.BatchNorm2d(4),
            nn.Dropout(0.5),
            nn.ConvTranspose2d(4, 2, 1),
        )
    )
    _, report, error = fold(model, torch.randn(2, 3, 6, 6))
    assert error <= 1e-5
    assert not report.left
    assert {entry.layer: entry.what for entry in report.changed} == {
        "0": "folded into 1",
        "3": "folded into 1",
        "5": "folded into 1",
        "7": "folded into 9",
    }


def test_a_channel_of_scale_zero_before_zero_padding_is_refused():
    model = randomize(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1)))
    with torch.no_grad():
        model[0].weight[1] = 0
    with pytest.warns(NoEffectWarning, match="scale 0 before zero padding"):
        fold_batch_norm(model)


@pytest.mark.parametrize("normalize", ["weight_norm", "orthogonal"])
def test_computed_weights_are_baked_in(normalize):
    model = nn.Sequential(getattr(parametrizations, normalize)(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4))
    with torch.no_grad():
        next(iter(model[0].parametrizations["weight"].parameters())).mul_(2)
    folded, _, error = fold(randomize(model), torch.randn(2, 3, 6, 6))
    assert error <= 1e-5
    assert set(folded.state_dict()) == {"0.weight", "0.bias"}


def test_weight_norm_of_the_old_kind_is_baked_in():
    with pytest.warns(FutureWarning):
        layer = nn.utils.weight_norm(nn.Linear(3, 4))
    with torch.no_grad():
        layer.weight_g.mul_(2)
    model, x = randomize(nn.Sequential(layer, nn.BatchNorm1d(4))), torch.randn(5, 3)
    expected = model(x)
    torch.testing.assert_close(fold_batch_norm(model)(x), expected, rtol=1e-5, atol=1e-6)
    assert set(model.state_dict()) == {"0.weight", "0.bias"}


@pytest.mark.parametrize("norm", [GhostBatchNorm1d, BatchRenorm2d, MeanOnlyBatchNorm2d, nn.SyncBatchNorm])
def test_our_own_batch_norms_and_synchronised_ones(norm):
    layer = nn.Linear(3, 4) if norm is GhostBatchNorm1d else nn.Conv2d(3, 4, 3)
    x = torch.randn(5, 3) if norm is GhostBatchNorm1d else torch.randn(5, 3, 6, 6)
    assert fold(randomize(nn.Sequential(layer, norm(4))), x)[2] <= 1e-5


def test_inserted_batch_norm_is_unwrapped():
    model = nn.Sequential(NormalizedLayer(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4)), nn.ReLU())
    folded, report, error = fold(randomize(model), torch.randn(5, 7, 3))
    assert error <= 1e-5
    assert type(folded[0]) is nn.Linear
    assert (report.changed[0].layer, report.changed[0].what) == ("0.batch_norm", "folded into 0")


def test_half_precision_and_double():
    model = randomize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    assert fold(copy.deepcopy(model).double(), torch.randn(2, 3, 6, 6).double())[2] <= 1e-12
    assert fold(model.bfloat16(), torch.randn(2, 3, 6, 6).bfloat16())[2] <= 2e-2


def test_the_optimiser_is_told():
    model = randomize(nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    optimizer = torch.optim.Adam([{"params": model[:2].parameters(), "lr": 0.1}, {"params": model[2].parameters()}])
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    fold_batch_norm(model, optimizer=optimizer)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in model[0].parameters()]
    assert {id(p) for p in optimizer.state} <= {id(p) for p in model.parameters()}


def test_double_folding_and_wrong_modes_are_errors():
    model = randomize(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    model[1].train()
    with pytest.raises(ValueError, match=r"layer '1' is in training mode.*model.eval\(\)"):
        fold_batch_norm(model)
    with pytest.raises(ValueError, match="the model is in training mode"):
        fold_batch_norm(model.train())
    assert type(model[1]) is nn.BatchNorm1d
    fold_batch_norm(model.eval())
    with pytest.raises(ValueError, match="was folded before"):
        fold_batch_norm(model)
    with pytest.warns(NoEffectWarning, match="folded nothing .no batch norm"):
        fold_batch_norm(nn.Linear(3, 3).eval())


def test_the_model_itself_may_be_a_wrapper_and_copies_and_exports_work():
    model = randomize(NormalizedLayer(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    folded, _, error = fold(model, torch.randn(5, 3))
    assert type(folded) is nn.Linear
    assert error <= 1e-5
    folded = fold_batch_norm(randomize(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1))))
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(copy.deepcopy(folded)(x), folded(x))
    torch.testing.assert_close(torch.export.export(folded, (x,)).module()(x), folded(x))
