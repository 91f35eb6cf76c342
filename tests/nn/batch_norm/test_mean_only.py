"""Mean-only batch normalisation against its formula."""

import pytest
import torch

from lightning_tricks.nn.batch_norm import MeanOnlyBatchNorm1d, MeanOnlyBatchNorm2d, MeanOnlyBatchNorm3d

SHAPES = {(6, 3): MeanOnlyBatchNorm1d, (6, 3, 4): MeanOnlyBatchNorm1d, (4, 3, 2, 5): MeanOnlyBatchNorm2d}
SHAPES[(2, 3, 2, 2, 3)] = MeanOnlyBatchNorm3d


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_gradients_and_running_mean(shape):
    layer = SHAPES[shape](3, momentum=0.25).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    axes, view = [0, *range(2, len(shape))], (1, -1) + (1,) * (len(shape) - 2)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    y = layer(x)
    mean = x.mean(axes)
    torch.testing.assert_close(y, x - mean.view(view) + layer.bias.view(view))
    torch.testing.assert_close(layer.running_mean, 0.25 * mean)
    delta = torch.randn_like(x)
    gradient, bias_gradient = torch.autograd.grad(y, (x, layer.bias), delta)
    torch.testing.assert_close(gradient, delta - delta.mean(axes).view(view))  # equation 12: centred as well
    torch.testing.assert_close(bias_gradient, delta.sum(axes))
    expected = x - layer.running_mean.view(view) + layer.bias.view(view)
    torch.testing.assert_close(layer.eval()(x), expected)


def test_gradcheck():
    layer = MeanOnlyBatchNorm1d(3).double()
    assert torch.autograd.gradcheck(layer, (torch.randn(5, 3, dtype=torch.float64, requires_grad=True),))


def test_half_precision_does_not_round_the_mean():
    x = (torch.randn(64, 4) + 100.3).bfloat16()
    layer = MeanOnlyBatchNorm1d(4).bfloat16()
    y = layer(x)
    exact = x.double() - x.double().mean(0)
    assert y.dtype == torch.bfloat16
    assert (y.double() - exact).abs().max() <= exact.abs().max() * 2**-8
    assert (y.float().mean(0)).abs().max() < 5e-3  # subtracting a bfloat16 mean of 100.5 would leave up to .25


def test_without_shift_and_without_statistics():
    layer = MeanOnlyBatchNorm2d(3, affine=False, track_running_stats=False).eval()
    assert dict(layer.state_dict()) == {}
    assert layer(torch.randn(4, 3, 2, 2) + 5).mean((0, 2, 3)).abs().max() < 1e-5


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="expected 4D input"):
        MeanOnlyBatchNorm2d(3)(torch.randn(2, 3))
    with pytest.raises(ValueError, match=r"got 4 channels .* expected 3"):
        MeanOnlyBatchNorm1d(3)(torch.randn(2, 4))
    with pytest.raises(ValueError, match="fewer than 2 values"):
        MeanOnlyBatchNorm1d(3)(torch.randn(1, 3))
