"""Fans against measured variances: of outputs for fan_in, of the gradients by the input for fan_out."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from lightning_tricks.init import fans, initialize, lecun_normal_, variance_scaling_, weight_blocks

# module, input shape; channels enough for a variance to be measured, positions away from the borders
CONVOLUTIONS = {
    "linear": (lambda: nn.Linear(200, 300, bias=False), (400, 200)),
    "conv1d": (lambda: nn.Conv1d(60, 80, 5, bias=False), (8, 60, 60)),
    "conv2d": (lambda: nn.Conv2d(40, 60, 3, bias=False), (4, 40, 24, 24)),
    "conv3d": (lambda: nn.Conv3d(16, 24, 3, bias=False), (2, 16, 12, 12, 12)),
    "conv2d strided": (lambda: nn.Conv2d(40, 60, 4, stride=2, bias=False), (4, 40, 42, 42)),
    "conv2d groups": (lambda: nn.Conv2d(64, 96, 3, groups=8, bias=False), (4, 64, 24, 24)),
    "conv1d groups": (lambda: nn.Conv1d(64, 96, 5, groups=4, bias=False), (8, 64, 60)),
    "conv3d groups": (lambda: nn.Conv3d(32, 32, 3, groups=4, bias=False), (2, 32, 12, 12, 12)),
    "depthwise": (lambda: nn.Conv2d(512, 512, 3, groups=512, bias=False), (2, 512, 24, 24)),
    "depthwise multiplier": (lambda: nn.Conv2d(256, 512, 3, groups=256, bias=False), (2, 256, 24, 24)),
    "transposed": (lambda: nn.ConvTranspose2d(40, 60, 3, bias=False), (4, 40, 24, 24)),
    "transposed stride": (lambda: nn.ConvTranspose2d(40, 60, 4, stride=2, bias=False), (4, 40, 20, 20)),
    "transposed uneven stride": (lambda: nn.ConvTranspose2d(40, 60, 3, stride=2, bias=False), (4, 40, 20, 20)),
    "transposed groups": (lambda: nn.ConvTranspose1d(64, 96, 6, stride=3, groups=8, bias=False), (8, 64, 60)),
    "transposed 3d": (lambda: nn.ConvTranspose3d(24, 16, 4, stride=2, bias=False), (2, 24, 8, 8, 8)),
}


def inner(tensor: torch.Tensor, border: int, stride: int) -> torch.Tensor:
    """Without the borders, where fewer terms are summed, and with each phase of the stride equally often."""
    for axis in range(2, tensor.ndim):
        tensor = tensor.narrow(axis, border, (tensor.shape[axis] - 2 * border) // stride * stride)
    return tensor


def parts(name: str) -> tuple[nn.Module, tuple[int, ...], int, int, int]:
    make, shape = CONVOLUTIONS[name]
    module = make()
    stride = getattr(module, "stride", (1,))[0]
    border = 0 if name == "linear" else max(6 if stride == 3 else 4, module.kernel_size[0] - 1)
    return module, shape, stride, *((border, 0) if "transposed" in name else (0, border))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_fan_in_is_what_keeps_the_output_variance(name):
    torch.manual_seed(0)
    module, shape, stride, border, _ = parts(name)
    measured = []
    for _ in range(6 if "depthwise" not in name else 2):
        lecun_normal_(module.weight, fan=fans(module))
        measured.append(float(inner(module(torch.randn(shape)), border, stride).detach().var()))
    assert sum(measured) / len(measured) == pytest.approx(1.0, rel=0.06)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_fan_out_is_what_keeps_the_gradient_variance(name):
    torch.manual_seed(0)
    module, shape, stride, _, border = parts(name)
    measured = []
    for _ in range(6 if "depthwise" not in name else 2):
        variance_scaling_(module.weight, mode="fan_out", fan=fans(module))
        x = torch.randn(shape, requires_grad=True)
        y = module(x)
        y.backward(torch.randn_like(y))
        measured.append(float(inner(x.grad, border, stride).var()))
    assert sum(measured) / len(measured) == pytest.approx(1.0, rel=0.06)


def measured_second_moment(product: torch.Tensor) -> float:
    return float(product.detach().square().mean())


@pytest.mark.parametrize("sizes", [{}, {"kdim": 90, "vdim": 130}])
def test_attention_projections_each_keep_the_variance(sizes):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(120, 4, **sizes)
    for scheme, fan_out in (("lecun_normal", False), ("glorot_uniform", True)):
        initialize(attention, scheme)
        blocks = weight_blocks(attention)
        assert [block.label for block in blocks] == ["q", "k", "v"]
        for block in blocks:
            weight = getattr(attention, block.parameter)[block.rows]
            assert weight.shape[0] == 120
            width = weight.shape[1]
            asked = width / ((width + 120) / 2) if fan_out else 1.0
            assert measured_second_moment(torch.randn(2000, width) @ weight.T) == pytest.approx(asked, rel=0.06)
        out = measured_second_moment(attention.out_proj(torch.randn(2000, 120)))
        assert out == pytest.approx(1.0, rel=0.06)
        assert not bool(attention.in_proj_bias.any())


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_gates_each_keep_the_variance(kind, gates):
    torch.manual_seed(0)
    net = kind(100, 160, num_layers=2, bidirectional=True)
    initialize(net, "glorot_uniform")
    for key in net._flat_weights_names:
        if key.startswith("weight"):
            width = getattr(net, key).shape[1]
            pre = torch.randn(2000, width) @ getattr(net, key).T
            for gate in pre.chunk(gates, dim=1):  # a gate is a matrix (160, width) of its own
                assert measured_second_moment(gate) == pytest.approx(width / ((width + 160) / 2), rel=0.07)
        else:
            assert not bool(getattr(net, key).any())
    blocks = weight_blocks(net)
    assert len(blocks) == 2 * 2 * 2 * gates


def test_recurrent_cells_and_projections():
    assert [b.label for b in weight_blocks(nn.LSTMCell(3, 4))][:4] == ["i gate", "f gate", "g gate", "o gate"]
    assert [tuple(b.fans) for b in weight_blocks(nn.GRUCell(3, 4))] == [(3, 4)] * 3 + [(4, 4)] * 3
    projected = weight_blocks(nn.LSTM(3, 8, proj_size=2))
    assert ("weight_hr_l0", (8, 2)) in [(b.parameter, tuple(b.fans)) for b in projected]


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_an_embedding_sums_one_term(kind):
    torch.manual_seed(0)
    table = kind(500, 64)
    lecun_normal_(table.weight, fan=fans(table))
    looked_up = table(torch.randint(0, 500, (3000, 1)))
    assert float(looked_up.detach().var()) == pytest.approx(1.0, rel=0.05)


def test_bilinear():
    torch.manual_seed(0)
    layer = nn.Bilinear(20, 30, 50, bias=False)
    lecun_normal_(layer.weight, fan=fans(layer))
    y = layer(torch.randn(2000, 20), torch.randn(2000, 30))
    assert float(y.detach().var()) == pytest.approx(1.0, rel=0.06)


@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.weight_norm, "old weight_norm"])
@pytest.mark.parametrize("make", [lambda: nn.Linear(200, 300), lambda: nn.ConvTranspose1d(60, 80, 4, stride=2)])
def test_weight_norm_is_written_through(wrap, make):
    torch.manual_seed(0)
    layer = make()
    if wrap == "old weight_norm":
        with pytest.warns(FutureWarning):
            layer = nn.utils.weight_norm(layer)
    else:
        layer = wrap(layer)
    initialize(layer, "lecun_normal")
    x = torch.randn(400, 200) if isinstance(layer, nn.Linear) else torch.randn(8, 60, 60)
    y = layer(x)[:, :, 4:-4] if x.ndim == 3 else layer(x)
    assert float(y.detach().var()) == pytest.approx(1.0, rel=0.07)
    y.sum().backward()  # and the graph still reaches the parameters
    assert all(p.grad is not None for p in layer.parameters())


def test_overruling_parametrizations_are_named_and_left():
    for wrap in (parametrizations.spectral_norm, parametrizations.orthogonal):
        layer = wrap(nn.Linear(20, 30))
        before = {key: value.clone() for key, value in layer.state_dict().items() if "original" in key}
        with pytest.warns(UserWarning, match="left as they were: .*parametrization of weight"):
            initialize(layer, "he_normal")
        assert all(torch.equal(layer.state_dict()[key], value) for key, value in before.items())
    pruned = prune.l1_unstructured(nn.Linear(20, 30), "weight", 0.5)
    with pytest.warns(UserWarning, match="computed from other tensors in a hook"):
        initialize(pruned, "he_normal")


def test_tied_weights_are_initialised_once_for_the_larger_sum():
    torch.manual_seed(0)
    table, decoder = nn.Embedding(300, 200), nn.Linear(200, 300, bias=False)
    decoder.weight = table.weight
    model = nn.Sequential(table, decoder)
    initialize(model, "lecun_normal")
    assert measured_second_moment(decoder(torch.randn(1000, 200))) == pytest.approx(1.0, rel=0.05)
    assert decoder.weight is table.weight


def test_lazy_and_meta():
    torch.manual_seed(0)
    lazy = nn.Sequential(nn.LazyLinear(300, bias=False))
    with pytest.raises(ValueError, match="layer '0': weight of the lazy LazyLinear has no shape yet; run one batch"):
        initialize(lazy, "lecun_normal")
    lazy(torch.randn(2, 200))
    initialize(lazy, "lecun_normal")
    assert measured_second_moment(lazy(torch.randn(1000, 200))) == pytest.approx(1.0, rel=0.05)

    with torch.device("meta"):
        meta = nn.Sequential(nn.Linear(200, 300), nn.ReLU(), nn.Linear(300, 300))
    initialize(meta)
    meta.to_empty(device="cpu")
    for layer in (meta[0], meta[2]):
        layer.reset_parameters()
    x = torch.randn(1000, 200)
    assert measured_second_moment(meta[0](x)) == pytest.approx(2.0, rel=0.06)  # He
    assert measured_second_moment(meta(x)) == pytest.approx(1.0, rel=0.1)


def test_fused_projections_of_users_by_name():
    qkv = nn.Linear(64, 192)
    assert [tuple(b.fans) for b in weight_blocks(qkv, "blocks.0.attn.qkv")] == [(64, 64)] * 3
    assert [tuple(b.fans) for b in weight_blocks(qkv, "head")] == [(64, 192)]


def test_timm_agrees_where_it_is_right():
    weight_init = pytest.importorskip("timm.layers.weight_init", reason="timm is a peer")
    torch.manual_seed(0)
    theirs = torch.empty(300, 200)
    weight_init.lecun_normal_(theirs)
    mine = lecun_normal_(torch.empty(300, 200))
    assert float(mine.std()) == pytest.approx(float(theirs.std()), rel=0.02)
    assert float(mine.abs().max()) == pytest.approx(float(theirs.abs().max()), rel=1e-3)


def test_fans_of_what_has_none_or_several():
    with pytest.raises(ValueError, match="ReLU has no single pair of fans"):
        fans(nn.ReLU())
    with pytest.raises(ValueError, match="weight_ih_l0 i gate"):
        fans(nn.LSTM(3, 4))
    assert fans(torch.empty(7, 5, 3)) == (15, 21)
    assert math.isclose(fans(nn.ConvTranspose2d(40, 60, 3, stride=2)).fan_in, 90)
