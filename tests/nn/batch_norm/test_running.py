"""What the batch normalisations share: precision, accumulation, signature, compilation, export."""

import copy
import inspect
import io
import pickle

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from lightning_tricks.nn import batch_norm
from lightning_tricks.nn.batch_norm import (
    BatchRenorm1d,
    BatchRenorm2d,
    GhostBatchNorm1d,
    GhostBatchNorm2d,
    MeanOnlyBatchNorm1d,
    MeanOnlyBatchNorm2d,
    micro_batch_momentum,
)

TABLES = [GhostBatchNorm1d, BatchRenorm1d, MeanOnlyBatchNorm1d]
IMAGES = [GhostBatchNorm2d, BatchRenorm2d, MeanOnlyBatchNorm2d]


@pytest.mark.parametrize("name", [name for name in batch_norm.__all__ if name.endswith("d")])
def test_the_signature_begins_with_that_of_nn_batch_norm(name):
    ours = list(inspect.signature(getattr(batch_norm, name).__init__).parameters.values())
    names = ["self", "num_features", "eps", "momentum", "affine", "track_running_stats", "device", "dtype"]
    assert [p.name for p in ours[:8]] == names
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[8:])


@pytest.mark.parametrize("cls", IMAGES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_running_statistics_stay_in_float32(cls, dtype):
    layer = cls(4, momentum=0.1).to(dtype)
    assert layer.running_mean.dtype is torch.float32
    assert layer.bias.dtype is dtype
    x = (torch.randn(16, 4, 5, 5) + 3).to(dtype)
    y = layer(x)
    assert y.dtype is dtype
    y.float().sum().backward()
    assert layer.bias.grad.dtype is dtype
    torch.testing.assert_close(layer.running_mean, 0.1 * x.float().mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    assert layer.eval()(x).dtype is dtype
    assert cls(4, dtype=dtype).running_mean.dtype is torch.float32
    assert layer.double().running_mean.dtype is torch.float64


@pytest.mark.parametrize("cls", TABLES)
def test_a_bfloat16_layer_reaches_a_mean_of_101(cls):
    layer = cls(1, momentum=0.1).bfloat16()
    layer.running_mean.fill_(100.0)
    x = torch.tensor([[100.0], [102.0]], dtype=torch.bfloat16).repeat(8, 1)
    for _ in range(100):
        layer(x)
    assert abs(layer.running_mean.item() - 101) < 1e-3


@pytest.mark.parametrize("cls", IMAGES)
def test_autocast(cls):
    layer = cls(4)
    x = torch.randn(8, 4, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x.bfloat16())
    assert y.dtype is torch.bfloat16
    torch.testing.assert_close(y.float(), cls(4)(x.bfloat16().float()), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("steps", [1, 2, 8])
@pytest.mark.parametrize("cls", TABLES)
def test_accumulated_micro_batches_move_as_far_as_one_batch(cls, steps):
    x = torch.tensor([[4.0], [6.0]])
    layer = cls(1, momentum=0.1, accumulation_steps=steps)
    for _ in range(steps):
        layer(x)
    torch.testing.assert_close(layer.running_mean, torch.tensor([0.5]))
    if steps == 8:
        uncorrected = cls(1, momentum=0.1)
        for _ in range(steps):
            uncorrected(x)
        torch.testing.assert_close(uncorrected.running_mean, torch.tensor([5 * (1 - 0.9**8)]))  # .57, not .1


@pytest.mark.parametrize("make", TABLES + IMAGES)
@pytest.mark.parametrize("eps", [4, 1.0, -1e-5, float("nan")])
def test_eps_out_of_range_is_told(make, eps):
    with pytest.raises(ValueError, match=rf"{make.__name__}: eps, .* must lie between 0 and 1, got {eps}"):
        make(8, eps)
    assert make(8, 1e-12).eps == 1e-12


def test_micro_batch_momentum_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\]"):
        micro_batch_momentum(-0.1, 2)
    with pytest.raises(ValueError, match="accumulation_steps must be at least 1, got 0"):
        micro_batch_momentum(0.1, 0)
    with pytest.raises(ValueError, match="accumulation_steps"):
        GhostBatchNorm1d(3, momentum=None, accumulation_steps=0)


@pytest.mark.parametrize("cls", [*TABLES, *IMAGES])
def test_copies_pickles_and_state_dicts(cls):
    layer = cls(3)
    x = torch.randn(4, 3, *([2, 2] if cls in IMAGES else []))
    layer(x)
    other = cls(3)
    other.load_state_dict(layer.state_dict())
    stored = io.BytesIO()
    torch.save(layer.state_dict(), stored)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other):
        assert torch.equal(twin.eval()(x), copy.deepcopy(layer).eval()(x))
    layer.reset_running_stats()
    assert layer.num_batches_tracked == 0
    assert not layer.running_mean.any()


@pytest.mark.parametrize("cls", [GhostBatchNorm2d, BatchRenorm2d])
def test_state_dicts_are_those_of_nn_batch_norm(cls):
    plain = nn.BatchNorm2d(3)
    plain(torch.randn(4, 3, 2, 2))
    layer = cls(3)
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(4, 3, 2, 2)
    assert torch.equal(layer.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("cls", TABLES)
def test_bias_can_be_left_out(cls):
    layer = cls(3, bias=False)
    assert "bias" not in layer.state_dict()
    layer.reset_parameters()
    assert layer(torch.randn(5, 3)).isfinite().all()
    assert layer.eval()(torch.randn(5, 3)).isfinite().all()


def test_a_meta_layer_materialises_in_float32():
    layer = GhostBatchNorm1d(3, device="meta", dtype=torch.bfloat16).to_empty(device="cpu")
    assert layer.running_var.dtype is torch.float32
    layer.reset_parameters()
    assert layer(torch.randn(5, 3)).isfinite().all()


@pytest.mark.parametrize("cls", IMAGES)
def test_update_bn_of_torch_works(cls):
    layer = nn.Sequential(cls(3))
    batches = [torch.randn(8, 3, 2, 2) for _ in range(3)]
    torch.optim.swa_utils.update_bn(batches, layer)
    if cls is MeanOnlyBatchNorm2d:
        return  # no scale, so torch does not take it for a batch norm: nothing but the mode may have changed
    torch.testing.assert_close(layer[0].running_mean, torch.cat(batches).mean((0, 2, 3)))


@pytest.mark.parametrize("cls", IMAGES)
def test_one_graph_under_compile(cls):
    layer = cls(4, momentum=None)
    twin = copy.deepcopy(layer)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(37, 4, 3, 3)
    for _ in range(2):
        torch.testing.assert_close(compiled(x), twin(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.state_dict(), twin.state_dict())


@pytest.mark.parametrize("cls", IMAGES)
def test_export(cls):
    layer = cls(4)
    layer(torch.randn(8, 4, 3, 3))
    layer.eval()
    x = torch.randn(5, 4, 3, 3)
    dynamic = {"input": {0: torch.export.Dim("batch")}}
    program = torch.export.export(layer, (x,), dynamic_shapes=dynamic)
    y = torch.randn(9, 4, 3, 3)
    torch.testing.assert_close(program.module()(y), layer(y))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cls", IMAGES)
def test_the_gpu_agrees_with_the_cpu(cls, dtype):
    layer = cls(4)
    twin = copy.deepcopy(layer).cuda()
    x = (torch.randn(21, 4, 6, 6) * 2 + 1).to(dtype)
    for formats in (torch.contiguous_format, torch.channels_last):
        y = layer(x.contiguous(memory_format=formats))
        z = twin(x.cuda().contiguous(memory_format=formats))
        tolerance = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 5e-2}[dtype]
        torch.testing.assert_close(z.cpu(), y, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(twin.cpu().state_dict(), layer.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls", TABLES)
@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")  # of torch's own first jvp
@pytest.mark.parametrize("size", [6, 7], ids=["even", "uneven"])
def test_forward_mode_is_the_transpose_of_backward(cls, size):
    """<w, J t> = <J^T w, t>, with dual numbers and with ``torch.func.jvp``."""
    layer = cls(3, **({"ghost_size": 4} if cls is GhostBatchNorm1d else {})).double()
    x, t, w = (torch.randn(size, 3, dtype=torch.float64) for _ in range(3))
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    with forward_ad.dual_level():
        forward = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, t))).tangent
    layer.load_state_dict(state)
    (backward,) = torch.autograd.grad(layer(x.requires_grad_()), x, w)
    torch.testing.assert_close((w * forward).sum(), (backward * t).sum())

    def with_own_statistics(x):  # which a transform has to see made, as those of nn.BatchNorm1d
        return torch.func.functional_call(layer, {name: value.clone() for name, value in state.items()}, (x,))

    _, tangent = torch.func.jvp(with_own_statistics, (x.detach(),), (t,))
    assert torch.allclose(tangent, forward)


@pytest.mark.parametrize("cls", TABLES)
def test_an_eps_of_zero_is_refused_where_it_would_be_later(cls):
    if cls is MeanOnlyBatchNorm1d:
        assert cls(3, eps=0.0)(torch.randn(4, 3)).shape == (4, 3)
    else:
        with pytest.raises(ValueError, match="eps, the second argument, must lie between 0 and 1, got 0"):
            cls(3, eps=0.0)
