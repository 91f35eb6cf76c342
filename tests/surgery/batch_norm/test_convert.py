"""Conversion keeps what a batch norm has, changes nothing in eval, and goes back."""

import copy
import warnings

import pytest
import torch
from torch import nn

from lightning_tricks.init.report import NoEffectWarning, Report
from lightning_tricks.nn import (
    BatchRenorm1d,
    BatchRenorm2d,
    BatchRenorm3d,
    GhostBatchNorm1d,
    GhostBatchNorm2d,
    GhostBatchNorm3d,
    MeanOnlyBatchNorm2d,
    MeanOnlyBatchNorm3d,
)
from lightning_tricks.surgery.batch_norm.convert import convert_batch_norm, dimensions_of, member


def network(**kwargs):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3),
        nn.BatchNorm1d(4, eps=1e-3, momentum=0.05),
        nn.Unflatten(2, (2, 3)),
        nn.BatchNorm2d(4, affine=False),
        nn.Unflatten(3, (3, 1)),
        nn.BatchNorm3d(4, momentum=None),
    ).to(**kwargs)
    x = torch.randn(16, 2, 8, **kwargs)
    for _ in range(3):
        model(x)
    return model, x


@pytest.mark.parametrize("cls", [GhostBatchNorm2d, BatchRenorm2d, nn.SyncBatchNorm])
def test_there_and_back(cls):
    model, x = network()
    model[3].eval()
    expected = copy.deepcopy(model).eval()(x)
    state, parameters = copy.deepcopy(model.state_dict()), list(model.parameters())
    assert convert_batch_norm(model, cls) is model
    if cls is not nn.SyncBatchNorm:
        assert [type(model[i]).__name__[-2:] for i in (1, 3, 5)] == ["1d", "2d", "3d"]
    assert all(isinstance(model[i], cls) or cls.__name__[:-2] in type(model[i]).__name__ for i in (1, 3, 5))
    assert (model[1].eps, model[1].momentum, model[5].momentum) == (1e-3, 0.05, None)
    assert [module.training for module in (model[1], model[3], model[5])] == [True, False, True]
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))
    torch.testing.assert_close(copy.deepcopy(model).eval()(x), expected)
    if cls is nn.SyncBatchNorm:
        return  # it has forgotten its dimensions
    convert_batch_norm(model, nn.BatchNorm2d)
    assert [type(model[i]) for i in (1, 3, 5)] == [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d]
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(copy.deepcopy(model).eval()(x), expected)


def test_arguments_reach_the_layers_and_can_be_changed_again():
    model, _ = network()
    convert_batch_norm(model, GhostBatchNorm2d, ghost_size=4, momentum=0.3)
    assert {(model[i].ghost_size, model[i].momentum) for i in (1, 3, 5)} == {(4, 0.3)}
    convert_batch_norm(model, GhostBatchNorm2d, ghost_size=8)
    assert {(model[i].ghost_size, model[i].momentum) for i in (1, 3, 5)} == {(8, 0.3)}


def test_mean_only_and_back_keeps_its_function():
    model, x = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    report = Report()
    convert_batch_norm(model, MeanOnlyBatchNorm2d, optimizer=optimizer, report=report)
    assert "without weight and running_var" in report.changed[0].what
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in model.parameters()}
    model(x * 2 + 1)
    expected = copy.deepcopy(model).eval()(x)
    convert_batch_norm(model, nn.BatchNorm2d, optimizer=optimizer)
    torch.testing.assert_close(model.eval()(x), expected)
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in model.parameters()}


def test_dtype_and_hooks_are_kept():
    model, x = network(dtype=torch.float64)
    convert_batch_norm(model, GhostBatchNorm2d)
    assert {t.dtype for t in model.state_dict().values()} == {torch.float64, torch.int64}
    assert model(x).dtype is torch.float64
    half = nn.Sequential(nn.BatchNorm1d(3)).bfloat16()
    seen = []
    half[0].register_forward_hook(lambda *_: seen.append(1))
    convert_batch_norm(half, GhostBatchNorm1d)
    assert (half[0].weight.dtype, half[0].running_mean.dtype) == (torch.bfloat16, torch.float32)
    half(torch.randn(4, 3, dtype=torch.bfloat16))
    assert seen == [1]


def test_frozen_shared_and_biasless_layers():
    norm = nn.BatchNorm1d(3)
    norm.track_running_stats = False
    norm.register_parameter("bias", None)
    norm.requires_grad_(False)
    model = convert_batch_norm(nn.ModuleList([norm, norm]), GhostBatchNorm1d)
    assert model[0] is model[1]
    assert model[0].bias is None
    assert model[0].weight is norm.weight
    assert not model[0].weight.requires_grad
    assert model[0].track_running_stats is False
    model[0](torch.randn(8, 3))
    assert model[0].num_batches_tracked == 0
    assert type(convert_batch_norm(nn.BatchNorm1d(3), GhostBatchNorm2d)) is GhostBatchNorm1d


def test_subclasses_are_left_and_named():
    class Activated(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x).relu()

    model, report = nn.Sequential(Activated(3), nn.BatchNorm2d(3)), Report()
    convert_batch_norm(model, GhostBatchNorm2d, report=report)
    assert type(model[0]) is Activated
    assert [(e.layer, e.what) for e in report.left] == [("0", "Activated may do more than batch norm")]
    assert [e.layer for e in report.changed] == ["1"]


@pytest.mark.parametrize(
    ("cls", "kwargs", "error", "message"),
    [
        (GhostBatchNorm2d, {"ghost_size": 0}, ValueError, "layer '1': ghost_size must be at least 1"),
        (GhostBatchNorm2d, {"gost_size": 8}, TypeError, "layer '1': .*gost_size"),
        (BatchRenorm2d, {"r_max": 0}, ValueError, "layer '1': .*r_max must be at least 1"),
        (nn.LayerNorm, {}, TypeError, "a batch-norm class is needed.*LayerNorm"),
    ],
)
def test_after_an_error_nothing_has_changed(cls, kwargs, error, message):
    model, _ = network()
    types, state = [type(m) for m in model], copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        convert_batch_norm(model, cls, **kwargs)
    assert [type(m) for m in model] == types
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)


def test_renorm_names_the_layer_that_has_no_statistics():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False))
    with pytest.raises(ValueError, match="layer '1': BatchRenorm2d corrects towards its running statistics"):
        convert_batch_norm(model, BatchRenorm2d)
    assert type(model[0]) is nn.BatchNorm2d


def test_nothing_to_convert_is_said():
    with pytest.warns(NoEffectWarning, match="no batch norm"):
        convert_batch_norm(nn.Linear(2, 2), GhostBatchNorm2d)
    with pytest.warns(NoEffectWarning, match="0: is BatchNorm1d already"):
        convert_batch_norm(nn.Sequential(nn.BatchNorm1d(3)), nn.BatchNorm2d)
    with pytest.raises(ValueError, match="layer '0' is not initialised yet"):
        convert_batch_norm(nn.Sequential(nn.LazyBatchNorm1d()), GhostBatchNorm2d)


def test_training_goes_on_with_the_same_optimiser():
    model, x = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    convert_batch_norm(model, GhostBatchNorm2d, ghost_size=4)
    weight = model[1].weight.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = model(x)
        (y * torch.randn_like(y)).sum().backward()
        optimizer.step()
    assert not torch.equal(weight, model[1].weight)


class Special(nn.BatchNorm2d):
    """A subclass whose own name does not tell."""


@pytest.mark.parametrize(
    ("cls", "dimensions"),
    [(nn.BatchNorm1d, 1), (GhostBatchNorm3d, 3), (MeanOnlyBatchNorm2d, 2), (Special, 2), (nn.SyncBatchNorm, None)],
)
def test_dimensions_of(cls, dimensions):
    assert dimensions_of(cls) == dimensions


@pytest.mark.parametrize(
    ("cls", "dimensions", "expected"),
    [
        (nn.BatchNorm2d, 1, nn.BatchNorm1d),
        (GhostBatchNorm2d, 1, GhostBatchNorm1d),
        (GhostBatchNorm2d, 2, GhostBatchNorm2d),
        (BatchRenorm1d, 3, BatchRenorm3d),
        (MeanOnlyBatchNorm2d, 3, MeanOnlyBatchNorm3d),
        (nn.SyncBatchNorm, 1, nn.SyncBatchNorm),
        (GhostBatchNorm2d, None, GhostBatchNorm2d),
        (Special, 2, Special),
    ],
)
def test_member(cls, dimensions, expected):
    assert member(cls, dimensions) is expected


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (nn.LayerNorm, "a batch-norm class is needed, such as .* got <class 'torch.*LayerNorm'>"),
        (nn.BatchNorm2d(3), "a batch-norm class is needed"),
        (Special, "Special has no 1-dimensional sibling"),
    ],
)
def test_what_is_no_batch_norm_or_stands_alone(cls, message):
    with pytest.raises(TypeError, match=message):
        member(cls, 1)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_from_mean_only_the_scale_stays_one(affine, eps):
    old = nn.Sequential(MeanOnlyBatchNorm2d(4, affine=affine, eps=eps)).eval()
    x = torch.randn(3, 4, 2, 2, dtype=torch.float64)
    expected = old.double()(x)
    torch.testing.assert_close(convert_batch_norm(old, nn.BatchNorm2d)(x), expected, rtol=1e-7, atol=1e-7)
