"""Blocks written in place, against split, batch norm of the parts, and cat."""

import pytest
import torch
import torch.nn.functional as F

from lightning_tricks.nn.batch_norm import ghost, ghost_batch_norm
from lightning_tricks.nn.batch_norm.blocks import NormalizeBlocks, can_write_in_place

LAYOUTS = {
    "table": ((13, 3), torch.contiguous_format, [(0, 8, 2), (8, 13, 1)]),
    "image": ((13, 3, 2, 4), torch.contiguous_format, [(0, 8, 4), (8, 13, 1)]),
    "channels last": ((13, 3, 2, 4), torch.channels_last, [(0, 5, 1), (5, 9, 1), (9, 13, 1)]),
}


def case(layout, dtype=torch.float32, affine=True):
    shape, memory_format, blocks = LAYOUTS[layout]
    x = torch.randn(shape, dtype=dtype)
    x = x.contiguous(memory_format=memory_format) if len(shape) == 4 else x
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    weight, bias = (torch.rand(3, dtype=wide) + 0.5, torch.randn(3, dtype=wide)) if affine else (None, None)
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias) if tensor is not None]
    return x, weight, bias, blocks, inputs


def by_parts(x, weight, bias, blocks):
    """The naive form: every group on its own."""
    means, variances = [], []
    y = torch.empty_like(x)
    for start, stop, groups in blocks:
        for k in range(groups):
            rows = torch.arange(start + k, stop, groups)
            mean, variance = (torch.full((3,), value, dtype=y.dtype).to(y) for value in (0.0, 1.0))
            mean, variance = (t.float() if y.dtype == torch.bfloat16 else t for t in (mean, variance))
            y = y.index_copy(0, rows, F.batch_norm(x[rows], mean, variance, weight, bias, True, 1.0, 1e-5))
            means.append(mean)
            variances.append(variance)
    return y, torch.cat(means), torch.cat(variances)


@pytest.fixture(autouse=True)
def one_thread():
    """See the tests of ghost batch norm: with several threads, the bits of narrow tables are their own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_bits_as_group_by_group(layout, dtype, affine):
    x, weight, bias, blocks, inputs = case(layout, dtype, affine)
    got, expected = NormalizeBlocks.apply(x, weight, bias, 1e-5, blocks), by_parts(x, weight, bias, blocks)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)
    assert got[0].stride() == x.stride()
    assert not got[1].requires_grad
    upstream = torch.randn_like(x)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 1e-2}[dtype]
    for a, b in zip(*(torch.autograd.grad(y[0], inputs, upstream) for y in (got, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_first_and_second_derivatives(layout):
    *_, blocks, inputs = case(layout, torch.float64)

    def run(x, weight, bias):
        return NormalizeBlocks.apply(x, weight, bias, 1e-5, blocks)[0]

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_only_the_gradients_asked_for():
    x, weight, bias, blocks, _ = case("image")
    with_frozen = NormalizeBlocks.apply(x, weight.detach(), bias, 1e-5, blocks)[0]
    with_all = NormalizeBlocks.apply(x, weight, bias, 1e-5, blocks)[0]
    upstream = torch.randn_like(x)
    for a, b in zip(*(torch.autograd.grad(y, (x, bias), upstream) for y in (with_frozen, with_all)), strict=True):
        assert torch.equal(a, b)
    (of_weight,) = torch.autograd.grad(NormalizeBlocks.apply(x.detach(), weight, bias, 1e-5, blocks)[0].sum(), weight)
    assert of_weight.shape == (3,)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")  # torch's own, for forward-mode derivatives
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
def test_transforms_go_the_other_way():
    x, _, _, _, _ = case("table", torch.float64)
    x = x.detach()
    tangent = torch.randn_like(x)

    def run(x):
        assert not can_write_in_place(x)
        return ghost_batch_norm(x, 5)[0]

    value, slope = torch.func.jvp(run, (x,), (tangent,))
    assert can_write_in_place(x)
    assert torch.equal(value, ghost_batch_norm(x, 5)[0])
    step = 1e-6
    numeric = (ghost_batch_norm(x + step * tangent, 5)[0] - ghost_batch_norm(x - step * tangent, 5)[0]) / (2 * step)
    torch.testing.assert_close(slope, numeric, rtol=1e-5, atol=1e-7)
    of_transform = torch.func.grad(lambda x: (ghost_batch_norm(x, 5)[0] * tangent).sum())(x)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad((ghost_batch_norm(leaf, 5)[0] * tangent).sum(), leaf)
    torch.testing.assert_close(of_transform, expected)


def test_both_ways_agree_to_the_bit(monkeypatch):
    for layout in LAYOUTS:
        x, weight, bias, _, _ = case(layout)
        fast = ghost_batch_norm(x, 4, weight, bias)
        monkeypatch.setattr(ghost, "can_write_in_place", lambda input: False)
        slow = ghost_batch_norm(x, 4, weight, bias)
        monkeypatch.undo()
        for a, b in zip(fast, slow, strict=True):
            assert torch.equal(a, b)


def test_an_upstream_gradient_in_any_layout():
    x, weight, bias, blocks, inputs = case("channels last")
    upstream = torch.randn(x.shape)
    got = torch.autograd.grad(NormalizeBlocks.apply(x, weight, bias, 1e-5, blocks)[0], inputs, upstream)
    expected = torch.autograd.grad(by_parts(x, weight, bias, blocks)[0], inputs, upstream)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
