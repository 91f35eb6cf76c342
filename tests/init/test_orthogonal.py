"""Orthogonal starts of layers: per group, the right way round, and what lengths become."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

import lightning_tricks.init as lt_init
from lightning_tricks.init.report import Report


def std_of(layer, *size, channels=None):
    """The standard deviation that white input leaves with, away from the borders."""
    x = torch.randn(*size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = layer(x)
    inner = (slice(None), slice(None), *(slice(n // 3, n - n // 3) for n in y.shape[2:]))
    return float(y[inner].std())


GROUPED = {
    "depthwise": (lambda: nn.Conv2d(64, 64, 3, groups=64), (4, 64, 24, 24)),
    "grouped": (lambda: nn.Conv1d(32, 64, 5, groups=4), (32, 32, 60)),
    "transposed": (lambda: nn.ConvTranspose2d(48, 12, 3), (4, 48, 24, 24)),
    "transposed, grouped": (lambda: nn.ConvTranspose1d(32, 16, 3, groups=4), (32, 32, 60)),
    "transposed, stride": (lambda: nn.ConvTranspose2d(32, 16, 4, stride=2), (4, 32, 24, 24)),
    "transposed, uneven": (lambda: nn.ConvTranspose1d(32, 8, 5, stride=3), (32, 32, 60)),
}


@pytest.mark.parametrize("name", GROUPED)
def test_white_input_leaves_with_standard_deviation_one(name):
    make, size = GROUPED[name]
    torch.manual_seed(0)
    assert std_of(lt_init.orthogonal_(make()), *size) == pytest.approx(1.0, rel=0.06)
    model = lt_init.initialize(nn.Sequential(make()), "orthogonal")
    assert std_of(model, *size) == pytest.approx(1.0, rel=0.06)


@pytest.mark.parametrize("scheme", ["initialize", "function"])
def test_thirty_grouped_circular_layers_keep_every_length(scheme):
    layers = [nn.Conv2d(16, 16, 3, groups=4, padding=1, padding_mode="circular", bias=False) for _ in range(30)]
    net = nn.Sequential(*layers).double()
    if scheme == "initialize":
        lt_init.initialize(net, "delta_orthogonal")
    else:
        for layer in net:
            lt_init.delta_orthogonal_(layer)
    x = torch.randn(2, 16, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(net(x).flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_transposed_delta_kernel_is_an_isometry(stride):
    layer = nn.ConvTranspose2d(8, 24, 3, stride=stride, groups=2, bias=False).double()
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    lengths = lt_init.delta_orthogonal_(layer, gain=2.0)(x).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, 2.0 * x.flatten(1).norm(dim=1))


def test_outputs_and_inputs_are_told_apart():
    with pytest.raises(ValueError, match="not 4 < 8"):
        lt_init.delta_orthogonal_(nn.ConvTranspose2d(8, 4, 3))
    with pytest.raises(ValueError, match="not 2 < 4"):
        lt_init.delta_orthogonal_(nn.Conv2d(8, 4, 3, groups=2))
    lt_init.delta_orthogonal_(nn.ConvTranspose2d(4, 8, 3))
    with pytest.warns(UserWarning, match="delta_orthogonal does not fit"):
        lt_init.initialize(nn.Sequential(nn.ConvTranspose2d(8, 4, 3)), "delta_orthogonal")


@pytest.mark.parametrize("start", [lt_init.orthogonal_, lt_init.delta_orthogonal_])
@pytest.mark.parametrize("layer", [nn.Conv2d(8, 16, 3, groups=4), nn.ConvTranspose2d(8, 16, 3, stride=2)])
def test_the_isometry_is_reported(start, layer):
    report = Report()
    assert start(layer, gain=0.5, report=report) is layer
    values = report.changed[0].values
    assert (values["shortest"], values["longest"]) == pytest.approx((0.5, 0.5))
    assert float(layer.bias.detach().abs().max()) == 0.0
    again = Report()
    lt_init.initialize(nn.Sequential(layer), start.__name__[:-1], report=again)
    assert again.changed[0].values["longest"] == pytest.approx(1.0)


def test_gates_and_parametrized_weights():
    gru = lt_init.orthogonal_(nn.GRU(4, 6))
    for gate in gru.weight_hh_l0.detach().chunk(3):
        torch.testing.assert_close(gate @ gate.T, torch.eye(6))
    normed = lt_init.orthogonal_(parametrizations.weight_norm(nn.Linear(8, 4)))
    torch.testing.assert_close((normed.weight @ normed.weight.T).detach(), torch.eye(4))
    assert float(lt_init.orthogonal_(nn.Embedding(5, 8, padding_idx=2)).weight[2].detach().abs().max()) == 0.0


def test_what_has_no_weight():
    with pytest.raises(ValueError, match="ReLU has no weight"):
        lt_init.orthogonal_(nn.ReLU())
    with pytest.raises(ValueError, match="3 to 5 dimensions"):
        lt_init.delta_orthogonal_(nn.Linear(2, 2))


def test_lsuv_begins_with_the_taps_that_meet():
    layer = nn.ConvTranspose2d(4, 8, 2, stride=2, bias=False)
    lt_init.lsuv_(layer, torch.randn(4, 4, 5, 5))
    for tap in layer.weight.detach().flatten(2).unbind(2):  # each meets no other
        gram = tap @ tap.T
        torch.testing.assert_close(gram, gram[0, 0] * torch.eye(4))


@settings(max_examples=25, deadline=None, database=None)
@given(
    groups=st.integers(1, 3), inputs=st.integers(1, 4), outputs=st.integers(1, 4), transposed=st.booleans(),
    kernel=st.sampled_from([(1,), (3,), (2, 3)]),
)  # fmt: skip
def test_any_groups_any_way_round(groups, inputs, outputs, transposed, kernel):
    """Each group's matrix has orthogonal rows or columns of one length, whichever are fewer."""
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d) if transposed else (nn.Conv1d, nn.Conv2d)
    conv = kinds[len(kernel) - 1](groups * inputs, groups * outputs, kernel, groups=groups).double()
    lt_init.orthogonal_(conv)
    for block in conv.weight.detach().chunk(groups):
        matrix = block.transpose(0, 1).flatten(1) if transposed else block.flatten(1)
        gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        torch.testing.assert_close(gram, torch.eye(len(gram), dtype=gram.dtype) * gram[0, 0], rtol=1e-9, atol=1e-9)
        assert float(gram[0, 0]) > 0
