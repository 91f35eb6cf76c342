"""Layers computed on the stack against the same layers mapped by torch.func.vmap."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.ensemble.mapping.backend import BackendBenchmark
from lightning_tricks.ensemble.mapping.batched import BatchedLayers
from lightning_tricks.ensemble.mapping.stack import Stack
from lightning_tricks.ensemble.mapping.steps import mapped_losses
from tests.ensemble.trainings import DOUBLE, Plain, difference, fit, separate, trainer

K, B = 4, 5


def sgd(parameters):
    """Not Adam: a bias before batch norm has gradients of nothing but rounding, which Adam blows up."""
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


class Wide(Plain):
    def __init__(self):
        super().__init__(
            nn.Sequential(
                nn.Linear(6, 20), nn.BatchNorm1d(20), nn.ReLU(inplace=True), nn.Linear(20, 16, bias=False),
                nn.LayerNorm(16), nn.GELU(), nn.Unflatten(1, (2, 8)), nn.BatchNorm1d(2), nn.Flatten(),
                nn.Sequential(nn.Linear(16, 12), nn.Identity(), nn.Linear(12, 3, bias=False)),
            ).double(), sgd,
        )  # fmt: skip


class Sequence(Plain):
    """Layers over more than one dimension of patterns, one of them used twice and a penalty on the weights."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 2)).double())
        self.head = nn.Linear(6, 3).double()

    def training_step(self, batch, batch_idx):
        x, y = batch
        x = x.view(-1, 3, 2)
        logits = self.head((x + self.net(self.net(x))).flatten(1))
        return nn.CrossEntropyLoss()(logits, y) + F.cross_entropy(logits, y, label_smoothing=0.1) + self.penalty()

    def penalty(self):
        return 0.01 * sum(value.square().sum() for value in self.parameters()) + self.net[0].weight.mean()


def batch():
    return torch.randn(K, B, 6, dtype=DOUBLE), torch.randint(3, (K, B))


def result(stack, given, batched):
    before = {name: value.clone() for name, value in stack.buffers.items()}
    losses, _ = mapped_losses(stack, list(range(K)), given, 0, batched=batched)
    gradients = torch.autograd.grad(losses.square().sum(), list(stack.parameters.values()))
    after = {name: value.clone() for name, value in stack.buffers.items()}
    for name, value in before.items():
        stack.buffers[name].copy_(value)
    return losses, gradients, after


@pytest.mark.parametrize("make", [Wide, Sequence])
@pytest.mark.parametrize("training", [True, False])
def test_losses_gradients_and_buffers(make, training):
    stack = Stack([make().train(training) for _ in range(K)])
    batched, given = BatchedLayers(stack), batch()
    assert len(batched) > 0
    torch.testing.assert_close(result(stack, given, batched), result(stack, given, None), rtol=1e-12, atol=1e-12)
    assert all("forward" not in vars(module) for module in stack.members[0].modules())


def test_known_layers_never_run_on_a_single_member(monkeypatch):
    stack, shapes = Stack([Wide() for _ in range(K)]), []
    monkeypatch.setattr(nn.GELU, "forward", lambda self, x: shapes.append(x.shape) or F.gelu(x))
    result(stack, batch(), BatchedLayers(stack))
    assert shapes == [(K, B, 16)]


def test_layers_with_hooks_are_mapped_and_their_hooks_called():
    stack, calls = Stack([Sequence() for _ in range(K)]), []
    batched, given = BatchedLayers(stack), batch()
    expected = result(stack, given, batched)
    handle = stack.members[0].net[1].register_forward_hook(lambda module, x, y: calls.append(y.shape))
    torch.testing.assert_close(result(stack, given, batched), expected, rtol=1e-12, atol=1e-12)
    handle.remove()
    assert calls == [(B, 3, 24)] * 2


class Own(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


@pytest.mark.parametrize("layer", [nn.Softshrink(), nn.Threshold(0.0, -1.0), nn.GELU("tanh")])
def test_activations_of_the_registry_are_known(layer):
    members = [nn.Sequential(copy.deepcopy(layer)) for _ in range(K)]
    assert len(BatchedLayers(Stack(members))) == 1


@pytest.mark.parametrize("layer", [nn.PReLU(), nn.RReLU(), nn.Softmax(1), nn.GLU()])
def test_what_has_weights_draws_or_mixes_is_mapped(layer):
    members = [nn.Sequential(copy.deepcopy(layer)) for _ in range(K)]
    assert len(BatchedLayers(Stack(members))) == 0


def test_a_batch_norm_with_too_many_dimensions_is_refused_in_torchs_words():
    class Images(Plain):
        def __init__(self):
            super().__init__(nn.Sequential(nn.BatchNorm1d(6)).double())

        def training_step(self, batch, batch_idx):
            return self.net(batch[0].view(-1, 6, 1, 1)).sum()

    stack = Stack([Images() for _ in range(K)])
    with pytest.raises(ValueError, match="expected 2D or 3D input"):
        mapped_losses(stack, list(range(K)), batch(), 0, batched=BatchedLayers(stack))
    assert stack.buffers["net.0.num_batches_tracked"].tolist() == [0] * K


def test_what_is_not_known_is_left_alone():
    norm = nn.BatchNorm1d(4, momentum=None)
    members = [nn.Sequential(Own(6, 4), norm, nn.Conv1d(1, 1, 1), nn.ModuleDict({"a": nn.Softmax(1)}))]
    assert len(BatchedLayers(Stack(members))) == 0


def test_dropout_draws_for_each_member_and_pattern():
    class Dropped(Plain):
        def __init__(self):
            super().__init__(nn.Sequential(nn.Linear(6, 2000), nn.Dropout(0.4)).double())
            self.net[0].weight.data.zero_()
            self.net[0].bias.data.fill_(1.0)

        def training_step(self, batch, batch_idx):
            return (self.net(batch[0]) > 0).double().mean()

    torch.manual_seed(0)
    stack = Stack([Dropped() for _ in range(K)])
    losses, _ = mapped_losses(stack, list(range(K)), batch(), 0, batched=BatchedLayers(stack))
    assert len(set(losses.tolist())) == K
    assert float(losses.mean()) == pytest.approx(0.6, abs=0.02)


def test_a_layer_that_is_computed_wrongly_is_noticed(monkeypatch):
    benchmark = BackendBenchmark(Stack([Wide() for _ in range(K)]), list(range(K)), batch(), 0, trainer())
    assert benchmark.why_not_mapped() is None
    assert benchmark.batched_is_right()
    layer = BatchedLayers._linear
    monkeypatch.setattr(BatchedLayers, "_linear", lambda self, module: lambda x: layer(self, module)(x) * (1 + 1e-6))
    assert not benchmark.batched_is_right()


def test_trained_like_separate_fits():
    ensemble, _ = fit(Wide, "vmap")
    assert ensemble.used_backend == "vmap"
    assert difference(ensemble.networks, separate(Wide)[0]) < 1e-10
