"""The SELU blocks: moments over depth, weights at the start, and everything torch does with a module."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from lightning_tricks.init import initialize
from lightning_tricks.nn import AlphaDropout, SelfNormalizingMLP, SELUConv1d, SELUConv2d, SELUConv3d, SELULinear

BLOCKS = {
    "linear": (lambda **kw: SELULinear(64, 256, **kw), (500, 64)),
    "conv1d": (lambda **kw: SELUConv1d(32, 64, 5, **kw), (20, 32, 60)),
    "conv2d": (lambda **kw: SELUConv2d(16, 48, 3, groups=2, **kw), (10, 16, 20, 20)),
    "conv2d strided": (lambda **kw: SELUConv2d(16, 48, 4, stride=2, **kw), (10, 16, 40, 40)),
    "conv3d": (lambda **kw: SELUConv3d(8, 32, 3, **kw), (4, 8, 10, 10, 10)),
}


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_keeps_mean_and_variance(name, dropout):
    torch.manual_seed(0)
    make, shape = BLOCKS[name]
    means, variances = [], []
    for _ in range(8):
        y = make(dropout=dropout)(torch.randn(shape)).detach()
        means.append(float(y.mean()))
        variances.append(float(y.var()))
    assert sum(means) / 8 == pytest.approx(0.0, abs=0.04)
    assert sum(variances) / 8 == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("name", BLOCKS)
def test_it_is_the_three_steps(name):
    torch.manual_seed(0)
    make, shape = BLOCKS[name]
    block, x = make(dropout=0.4), torch.randn(shape)
    torch.manual_seed(1)
    y = block(x)
    torch.manual_seed(1)
    steps = AlphaDropout(0.4)(torch.selu(block.weighted(x)))
    assert torch.equal(y, steps)
    assert torch.equal(block.eval()(x), torch.selu(block.weighted(x)))
    assert not bool(block.weighted.bias.any())


def test_a_deep_stack_stays_and_gradients_grow_threefold():
    """32 layers: mean 0, variance 1, and a gradient that grows by sqrt(1.0716) a layer."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    ends, growth = [], []
    for _ in range(4):
        net = SelfNormalizingMLP(256, [256] * 32, 10)
        x = torch.randn(512, 256, generator=generator, requires_grad=True)
        y = net.hidden(x)
        ends.append((float(y.detach().mean()), float(y.detach().var())))
        (gradient,) = torch.autograd.grad(y, x, torch.randn(y.shape, generator=generator))
        growth.append(float(gradient.std()))
    assert abs(sum(mean for mean, _ in ends)) / 4 < 0.05
    assert sum(variance for _, variance in ends) / 4 == pytest.approx(1.0, abs=0.12)
    assert sum(growth) / 4 == pytest.approx(1.0716**16, rel=0.25)


@pytest.mark.parametrize("shift", [-0.3, 0.3])
def test_a_deviation_of_the_input_dies_out(shift):
    torch.manual_seed(0)
    net = SelfNormalizingMLP(512, [512] * 12, 10)
    y = net.hidden(1.4 * torch.randn(400, 512) + shift)
    assert float(y.detach().var()) == pytest.approx(1.0, abs=0.2)


def test_alpha_dropout_eats_the_signal_of_a_deep_stack():
    """What the docstrings warn of: ((1-p) / (1 + 3.0909 p))^32 = 0.002 of the squared correlation at p = 0.05."""
    torch.manual_seed(0)
    net = SelfNormalizingMLP(256, [256] * 32, 10, dropout=0.05)
    x = torch.randn(256, 256)
    with torch.no_grad():
        first, second = net.hidden(x), net.hidden(x)
        clean = net.eval().hidden(x)
    correlation = float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])
    assert correlation < 0.05
    assert math.isclose(float(clean.var()), 1.0, abs_tol=0.3)


def test_constructor_arguments_reach_the_layer():
    block = SELUConv2d(4, 8, 3, stride=2, padding=1, dilation=2, groups=4, bias=False, dtype=torch.float64, dropout=0.1)
    layer = block.weighted
    assert (layer.stride, layer.padding, layer.dilation, layer.groups, layer.bias) == ((2, 2), (1, 1), (2, 2), 4, None)
    assert layer.weight.dtype == torch.float64
    assert block.dropout.p == 0.1
    assert SELULinear(3, 4, bias=False, dtype=torch.bfloat16).weighted.weight.dtype == torch.bfloat16
    assert SelfNormalizingMLP(3, [], 4)(torch.ones(1, 3)).shape == (1, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SELULinear(3, 4, dropout=1.5), ValueError, r"dropout, .* has to be in \[0, 1\), not 1\.5"),
        (lambda: SELUConv1d(3, 4, 5, dropout=-0.1), ValueError, r"dropout, .* not -0\.1"),
        (lambda: SelfNormalizingMLP(3, [], 4, dropout=1.0), ValueError, r"dropout, .* not 1\.0"),
        (lambda: SELULinear(0, 4), ValueError, "in_features has to be at least 1, not 0"),
        (lambda: SELULinear(3, -4), ValueError, "out_features has to be at least 1, not -4"),
        (lambda: SELULinear(3, 4.0), TypeError, r"out_features has to be an int, .* not float 4\.0"),
        (lambda: SelfNormalizingMLP("8", [4], 2), TypeError, "in_features has to be an int, .* not str '8'"),
        (lambda: SelfNormalizingMLP(8, [4, 0], 2), ValueError, r"hidden_features\[1\] has to be at least 1, not 0"),
        (lambda: SelfNormalizingMLP(8, 64, 2), TypeError, r"hidden_features .* such as \[64\] for one, not int 64"),
        (lambda: SelfNormalizingMLP(8, [4], None), TypeError, "out_features has to be an int, .* not NoneType None"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_sizes_may_be_of_numpy():
    assert SELULinear(np.int64(3), np.int32(4))(torch.ones(2, 3)).shape == (2, 4)


def test_weights_made_on_the_meta_device_start_right_too():
    torch.manual_seed(0)
    with torch.device("meta"):
        net = SelfNormalizingMLP(300, [200], 100)
    net.to_empty(device="cpu")
    for module in net.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert float(net.hidden[0].weighted.weight.detach().var()) == pytest.approx(1 / 300, rel=0.05)
    assert float(net.output.weight.detach().var()) == pytest.approx(1 / 200, rel=0.05)
    assert not bool(net.output.bias.any())


def test_initialize_knows_the_blocks():
    torch.manual_seed(0)
    net = nn.Sequential(SELUConv2d(8, 16, 3, groups=4), nn.Flatten(), SELULinear(64, 100), nn.Linear(100, 10))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(7.0)
    initialize(net)
    assert float(net[0].weighted.weight.detach().var()) == pytest.approx(1 / 18, rel=0.2)
    assert float(net[2].weighted.weight.detach().var()) == pytest.approx(1 / 64, rel=0.1)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        SELUConv1d(3, 4, 3, dropout=0.2), nn.Flatten(), SelfNormalizingMLP(24, [16, 16], 5, dropout=0.1)
    )


def test_copies_pickles_and_state_dicts():
    net, x = small().eval(), torch.randn(2, 3, 8)
    again = small()
    again.load_state_dict(net.state_dict())
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), again.eval()):
        assert torch.equal(twin(x), net(x))


@pytest.mark.filterwarnings("ignore:Skipping serialization")  # of inductor's cache, in torch 2.6
def test_compiled_it_computes_the_same():
    net, x = small().eval(), torch.randn(2, 3, 8)
    assert torch.allclose(torch.compile(net, fullgraph=True)(x), net(x), atol=1e-5)
    trained = torch.compile(small(), fullgraph=True)
    trained(x).sum().backward()
    assert all(parameter.grad is not None for parameter in trained.parameters())


def test_autocast():
    net = small()
    with torch.autocast("cpu", torch.bfloat16):
        y = net(torch.randn(2, 3, 8))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in net.parameters())


def test_exported_it_computes_the_same():
    net, x = small().eval(), torch.randn(2, 3, 8)
    program = torch.export.export(net, (x,))
    assert torch.allclose(program.module()(x), net(x), atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx_computes_the_same():
    pytest.importorskip("onnxscript", reason="torch's exporter needs it")
    onnx = pytest.importorskip("onnx", reason="its reference evaluator runs the graph")
    from onnx.reference import ReferenceEvaluator

    net, x = small().eval(), torch.randn(2, 3, 8)
    buffer = io.BytesIO()
    torch.onnx.export(net, (x,), buffer, dynamo=True, verbose=False)
    model = onnx.load_from_string(buffer.getvalue())
    session = ReferenceEvaluator(model)
    (y,) = session.run(None, {model.graph.input[0].name: x.numpy()})
    assert torch.allclose(torch.from_numpy(y), net(x), atol=1e-5)
