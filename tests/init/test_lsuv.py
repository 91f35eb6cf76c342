"""LSUV: unit variance after one pass where others need many, and no trace of the pass."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks.init as lt_init
from lightning_tricks.nn import MeanOnlyBatchNorm1d, MeanOnlyBatchNorm2d


class Reversed(nn.Module):
    """Registered last to first: an implementation that goes by registration scales every layer on the wrong input."""

    def __init__(self):
        super().__init__()
        for index in reversed(range(6)):
            setattr(self, f"layer{index}", nn.Linear(32, 32))

    def forward(self, x):
        for index in range(6):
            x = F.relu(getattr(self, f"layer{index}")(x))
        return x


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.shared = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x):
        return self.shared(F.relu(self.shared(F.relu(self.first(x)))))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.middle, self.decode = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.decode(F.gelu(self.middle(F.gelu(self.encode(x)))))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.a = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))
        self.b = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))

    def forward(self, x):
        x = self.stem(x)
        for a, b in zip(self.a, self.b, strict=True):
            x = x + b(F.relu_(a(x)))
        return x


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, tokens):
        return self.head(self.encoder(self.embed(tokens)))


class Transposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv1d(4, 8, 3, stride=2)
        self.up = nn.ConvTranspose1d(8, 4, 4, stride=2, groups=2)
        self.norm = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 8, 3))

    def forward(self, x):
        return self.norm(torch.tanh(self.up(F.silu(self.down(x)))))


NETS = {
    "reversed": (Reversed, lambda: torch.randn(256, 32) * 3 + 1),
    "shared": (Shared, lambda: torch.randn(256, 32)),
    "tied": (Tied, lambda: torch.randn(256, 32)),
    "residual": (Residual, lambda: torch.randn(16, 3, 12, 12)),
    "attention": (Attention, lambda: torch.randint(0, 50, (32, 12))),
    "transposed": (Transposed, lambda: torch.randn(32, 4, 30)),
}


def measure(model, batch):
    """std of the first output of every weighted layer, and of q, k and v, in an ordinary pass in eval."""
    found = {}

    def see(name):
        def hook(module, args, kwargs, output):
            if isinstance(module, nn.MultiheadAttention):
                for label, weight in zip("qkv", module.in_proj_weight.chunk(3), strict=True):
                    found.setdefault(f"{name}.{label}", float((args[0] @ weight.T).std()))
                found.setdefault(f"{name}.out_proj", float(output[0].std()))
            else:
                found.setdefault(name, float(output.std()))

        return hook

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.Embedding, nn.MultiheadAttention)
    handles = [
        module.register_forward_hook(see(name), with_kwargs=True)
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    ]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    flags = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()(batch)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, flag in flags.items():
            module.training = flag
        for handle in handles:
            handle.remove()
    return found


@pytest.mark.parametrize("orthogonal", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_every_layer_has_unit_std_after_one_pass(name, orthogonal):
    torch.manual_seed(0)
    make, draw = NETS[name]
    model, batch = make(), draw()
    passes = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    assert lt_init.lsuv_(model, batch, orthogonal=orthogonal) is model
    handle.remove()
    assert len(passes) == 1
    stds = measure(model, batch)
    if name == "tied":
        stds.pop("decode")  # its weight is the encoder's
    assert len(stds) >= 2
    for layer, std in stds.items():
        assert abs(std - 1) <= 1e-3, (layer, std)


def test_the_weights_start_orthonormal_group_by_group():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 12, 3, groups=2), nn.Flatten(), nn.Linear(192, 30))
    lt_init.lsuv_(model, torch.randn(64, 8, 8, 8))
    depthwise = model[0].weight.flatten(1).norm(dim=1)
    assert torch.allclose(depthwise, depthwise[0].expand(8))
    for part in model[1].weight.chunk(2):
        gram = part.flatten(1) @ part.flatten(1).T
        assert torch.allclose(gram, gram[0, 0] * torch.eye(6), atol=1e-5)
    gram = model[3].weight @ model[3].weight.T
    assert torch.allclose(gram, gram[0, 0] * torch.eye(30), atol=1e-5)


def test_flags_buffers_hooks_and_random_numbers_are_as_before():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(8, 8),
        nn.BatchNorm1d(8),
        nn.Linear(8, 2),
    )
    model[5].eval()
    flags = [module.training for module in model.modules()]
    buffers = {key: value.clone() for key, value in model.named_buffers()}
    state = torch.get_rng_state()
    lt_init.lsuv_(model, torch.randn(64, 8, generator=torch.Generator().manual_seed(1)))
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, buffers[key]) for key, value in model.named_buffers())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_batch_norm_in_training_shows_the_next_layer_what_training_will():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 16))
    x = 5 * torch.randn(128, 8) + 2
    lt_init.lsuv_(model, x)
    assert float(model(x).detach().std()) == pytest.approx(1.0, abs=1e-3)


def test_after_an_error_nothing_is_changed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.ReLU6(), nn.Linear(8, 8), nn.Linear(3, 3))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        lt_init.lsuv_(model, torch.randn(16, 8))
    with pytest.raises(ValueError, match=r"output of layer '0' has standard deviation 0\.0 on this batch"):
        lt_init.lsuv_(model, torch.zeros(16, 8))
    with pytest.raises(ValueError, match="output of layer '0' has standard deviation nan"):
        lt_init.lsuv_(model, torch.full((16, 8), torch.inf))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_is_left_is_named():
    torch.manual_seed(0)
    model = Tied()
    model.unused = nn.Linear(3, 3)
    model.middle.weight.requires_grad_(False)
    unused = model.unused.weight.clone()
    report = lt_init.Report()
    lt_init.lsuv_(model, torch.randn(64, 32), report=report)
    left = {entry.layer: entry.what for entry in report.left}
    assert left["unused"] == "not reached by the forward pass"
    assert left["middle"] == "weight is frozen (requires_grad=False)"
    assert left["decode"] == "weight is tied to layer 'encode', which ran first"
    assert [entry.layer for entry in report.changed] == ["encode"]
    assert torch.equal(model.unused.weight, unused)

    recurrent = nn.Sequential(nn.LSTM(4, 4))
    report = lt_init.Report()
    lt_init.lsuv_(recurrent, torch.randn(5, 2, 4), report=report)
    assert "bounded by its gates" in report.left[0].what


def test_batches_as_tuples_and_a_forward_of_ones_own():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, a, b):
            return self.layer(a + b)

    torch.manual_seed(0)
    a, b = torch.randn(64, 4), torch.randn(64, 4)
    model = lt_init.lsuv_(Two(), {"a": a, "b": b}, forward=lambda model, batch: model(**batch))
    assert float(model(a, b).detach().std()) == pytest.approx(1.0, abs=1e-3)
    plain = lt_init.lsuv_(nn.Linear(4, 4), (a, torch.zeros(64)))
    assert float(plain(a).detach().std()) == pytest.approx(1.0, abs=1e-3)


def test_nothing_to_scale_warns_and_lazy_or_meta_layers_are_named():
    with pytest.warns(lt_init.NoEffectWarning, match="ReLU has no layer"):
        lt_init.lsuv_(nn.ReLU(), torch.ones(2, 2))
    with pytest.raises(ValueError, match="layer '0': weight of the lazy LazyLinear"):
        lt_init.lsuv_(nn.Sequential(nn.LazyLinear(3)), torch.ones(2, 2))
    with pytest.raises(ValueError, match="layer '0' is on the meta device"):
        lt_init.lsuv_(nn.Sequential(nn.Linear(3, 3, device="meta")), torch.ones(2, 3))


def test_half_precision():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).bfloat16()
    x = torch.randn(256, 64).bfloat16()
    lt_init.lsuv_(model, x)
    assert float(model(x).detach().float().std()) == pytest.approx(1.0, abs=1e-2)


def test_a_loader_in_place_of_a_batch():
    model = nn.Sequential(nn.Linear(8, 4))
    before = model[0].weight.detach().clone()
    loader = DataLoader(TensorDataset(torch.randn(32, 8)), batch_size=16)
    for batch, got in ((None, "NoneType"), (loader, "DataLoader"), (loader.dataset, "TensorDataset")):
        with pytest.raises(TypeError, match=rf"batch has to be one batch .* not {got}: pass next\(iter\(loader\)\)"):
            lt_init.lsuv_(model, batch)
    assert torch.equal(model[0].weight, before)
    x = next(iter(loader))[0]
    lt_init.lsuv_(model, None, forward=lambda net, _: net(x))  # a forward may know where its batch is
    assert float(model(x).detach().std()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("images", [False, True])
def test_before_a_batch_norm_that_only_centres_what_is_left_has_unit_std(images):
    layer, norm, x = (nn.Conv2d, MeanOnlyBatchNorm2d, torch.randn(64, 8, 6, 6) + 3) if images else (
        nn.Linear, MeanOnlyBatchNorm1d, torch.randn(256, 8) + 3)  # fmt: skip
    more = (3,) if images else ()
    net = nn.Sequential(layer(8, 32, *more), norm(32), nn.ReLU(), layer(32, 32, *more), norm(32), nn.ReLU())
    stds = []
    lt_init.lsuv_(net, x)
    for module in net:
        if isinstance(module, norm):
            module.register_forward_hook(lambda module, args, output: stds.append(float(output.detach().std())))
    net(x)
    assert stds == pytest.approx([1.0, 1.0], abs=1e-3)
