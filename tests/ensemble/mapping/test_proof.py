"""A mapped step is compared with the looped one: what is mapped is equal, what is not equal is named and looped."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt
from lightning_tricks.ensemble.mapping import proof
from lightning_tricks.ensemble.mapping.stack import Stack
from lightning_tricks.ensemble.mapping.steps import mapped_losses
from lightning_tricks.nn import dropout
from tests.ensemble.trainings import DOUBLE, Plain, Smooth, data, difference, fit, separate


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def member(*layers):
    """A member class around layers, each made by a function."""
    return lambda: Plain(nn.Sequential(*(make() for make in layers)).double(), sgd)


def images():
    return nn.Unflatten(1, (1, 2, 3))


LAYERS = {
    "batch renorm": lambda: lt.nn.BatchRenorm1d(8, warmup_steps=1, r_max_step=3, d_max_step=3),
    "batch renorm at once": lambda: lt.nn.BatchRenorm1d(8, warmup_steps=0, r_max_step=0, d_max_step=0),
    "ghost": lambda: lt.nn.GhostBatchNorm1d(8, ghost_size=5),
    "ghost, average": lambda: lt.nn.GhostBatchNorm1d(8, ghost_size=8, momentum=None),
    "mean only": lambda: lt.nn.MeanOnlyBatchNorm1d(8),
    "standardize": lambda: lt.nn.Standardize(8),
    "selu": lambda: lt.nn.SELULinear(8, 8),
    "shifted relu": lt.nn.ShiftedReLU,
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_this_library_are_mapped_and_train_like_separate_fits(name):
    make = member(lambda: nn.Linear(6, 8), LAYERS[name], nn.Tanh, lambda: nn.Linear(8, 3))
    ensemble, _ = fit(make, "vmap")
    assert ensemble.used_backend == "vmap", ensemble.reason
    assert difference(ensemble.networks, separate(make)[0]) < 1e-10


IMAGES = {
    "batch renorm": lambda: lt.nn.BatchRenorm2d(4, warmup_steps=0, r_max_step=2, d_max_step=2),
    "ghost": lambda: lt.nn.GhostBatchNorm2d(4, ghost_size=6),
    "mean only": lambda: lt.nn.MeanOnlyBatchNorm2d(4),
    "selu": lambda: lt.nn.SELUConv2d(4, 4, 1),
}


@pytest.mark.parametrize("name", IMAGES)
def test_layers_for_images_too(name):
    make = member(images, lambda: nn.Conv2d(1, 4, 2), IMAGES[name], nn.Flatten, lambda: nn.Linear(8, 3))
    ensemble, _ = fit(make, "vmap")
    assert ensemble.used_backend == "vmap", ensemble.reason
    assert difference(ensemble.networks, separate(make)[0]) < 1e-10


def test_ghost_groups_of_channels_last_images_are_those_of_the_loop():
    class ChannelsLast(Plain):
        def __init__(self):
            super().__init__(
                nn.Sequential(lt.nn.GhostBatchNorm2d(2, ghost_size=6), nn.Flatten(), nn.Linear(6, 3)).double(), sgd
            )

        def forward(self, x):
            return self.net(x.view(-1, 1, 3, 2).permute(0, 3, 1, 2))

    ensemble, _ = fit(ChannelsLast, "vmap")
    assert ensemble.used_backend == "vmap"
    assert difference(ensemble.networks, separate(ChannelsLast)[0]) < 1e-10


@pytest.mark.parametrize("layer", [lt.nn.AlphaDropout(0.5), lt.nn.FeatureAlphaDropout(0.5), nn.Dropout2d(0.5)])
@pytest.mark.parametrize("width", [8, 2000])
def test_dropout_is_mapped_at_every_size_and_drops_for_each_member(layer, width):
    make = member(lambda: nn.Linear(6, width * 4), lambda: nn.Unflatten(1, (width, 2, 2)), lambda: layer, nn.Flatten,
                  lambda: nn.Linear(4 * width, 3))  # fmt: skip
    ensemble, _ = fit(make, "vmap", max_epochs=1)
    assert ensemble.used_backend == "vmap", ensemble.reason


@pytest.mark.parametrize("layer", [lt.nn.AlphaDropout(0.5), lt.nn.FeatureAlphaDropout(0.5)])
@pytest.mark.parametrize("width", [8, 2000])
def test_alpha_dropout_is_that_of_each_member(layer, width, monkeypatch):
    """With the same draws for all members, losses and gradients are those of the loop, at a small and a large size."""
    monkeypatch.setattr(dropout, "_LARGE", 1 << 30)  # the loop draws as the mapped step does
    make = member(lambda: nn.Linear(6, width * 4), lambda: nn.Unflatten(1, (width, 2, 2)), lambda: layer, nn.Flatten,
                  lambda: nn.Linear(4 * width, 3))  # fmt: skip
    x, y = data(12).tensors
    stack, batch = Stack([make() for _ in range(3)]), (x.view(3, 4, 6), y.view(3, 4))

    def gradients():
        found = [value.grad.clone() for value in stack.parameters.values()]
        for value in stack.parameters.values():
            value.grad = None
        return found

    torch.manual_seed(4)
    mapped, _ = mapped_losses(stack, [0, 1, 2], batch, 0, same_draws=True)
    mapped.sum().backward()
    by_map = gradients()
    for row, own in enumerate(stack.members):
        torch.manual_seed(4)
        loss = F.cross_entropy(own(batch[0][row]), batch[1][row])
        assert torch.allclose(loss, mapped[row], rtol=1e-10)
        loss.backward()
    stack.collect_gradients()
    for one, two in zip(by_map, gradients(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


class Tokens(Plain):
    """Classifies by embedded tokens, of which 0 is padding."""

    def __init__(self):
        super().__init__(nn.Linear(4, 3), sgd)
        self.e = nn.Embedding(5, 4, padding_idx=0)
        self.double()

    def forward(self, x):
        return self.net(self.e((x.abs() * 3).long().clamp(max=4)).mean(1))


def test_the_padding_row_of_an_embedding_stays():
    ensemble, _ = fit(Tokens, "vmap")
    assert ensemble.used_backend == "vmap"
    assert all(float(network.e.weight[0].detach().abs().max()) == 0 for network in ensemble.networks)
    assert difference(ensemble.networks, separate(Tokens)[0]) < 1e-10


def test_an_embedding_refuses_an_index_out_of_range():
    class Wrong(Tokens):
        def forward(self, x):
            return self.net(self.e(torch.full(x.shape, 5)).mean(1))

    with pytest.warns(UserWarning, match="loop"), pytest.raises(IndexError):
        fit(Wrong, "vmap")


class Same(torch.autograd.Function):
    """The input; what it is where it is mapped, a subclass says."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Halved(Same):
    """The input; mapped, the second member has half of the gradient."""

    @staticmethod
    def vmap(info, in_dims, x):
        half = torch.tensor([1.0, 0.5, 1.0], dtype=x.dtype).view(3, *[1] * (x.dim() - 1))
        return half * x + ((1 - half) * x).detach(), 0


class Half(Plain):
    def __init__(self):
        super().__init__(nn.Linear(6, 3).double(), sgd)

    def forward(self, x):
        return F.linear(x, Halved.apply(self.net.weight), self.net.bias)


def test_the_first_tensor_that_differs_is_named_and_the_loop_taken():
    with pytest.warns(
        UserWarning, match=r"not the same as a looped one in the gradient of net\.weight, member 1"
    ) as warned:
        ensemble, _ = fit(Half, "auto")
    assert sum("net.weight" in str(warning.message) for warning in warned) == 1
    assert ensemble.used_backend == "loop"
    assert difference(ensemble.networks, separate(Half)[0]) < 1e-10


class Statistics(Smooth):
    """A kernel without a batching rule of its own writes what it finds into one place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6, dtype=DOUBLE))

    def forward(self, x):
        mean, var = torch.zeros(6, dtype=DOUBLE), torch.ones(6, dtype=DOUBLE)
        torch.batch_norm_update_stats(x, mean, var, 1.0)
        self.mean.copy_(mean)
        return self.net(x)


def test_a_buffer_that_differs_is_named():
    with pytest.warns(UserWarning, match="in mean, member 0"):
        ensemble, _ = fit(Statistics, "vmap")
    assert difference(ensemble.networks, separate(Statistics)[0]) < 1e-10


def test_random_numbers_of_python_are_each_members_own():
    class Mixing(Smooth):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return random.random() * F.cross_entropy(self(x), y)

    with pytest.warns(UserWarning, match="draws Python's or NumPy's random numbers"):
        assert fit(Mixing)[0].used_backend == "loop"


@pytest.mark.parametrize("draw", [torch.randn_like, torch.rand_like, lambda x: torch.randn(x.shape, dtype=DOUBLE),
                                  lambda x: torch.bernoulli(torch.full_like(x, 0.5)),
                                  lambda x: F.dropout(x, 0.4), lambda x: torch.empty_like(x).normal_()])  # fmt: skip
def test_a_step_that_draws_is_mapped(draw):
    class Noisy(Smooth):
        def forward(self, x):
            return self.net(x + draw(x))

    assert fit(Noisy, "vmap")[0].used_backend == "vmap"


class Rough(Same):
    """The input; mapped in single precision it is off, as where rounding decides on which side of a kink a unit is."""

    @staticmethod
    def vmap(info, in_dims, x):
        return x * (1.01 if x.dtype == torch.float32 else 1.0), in_dims[0]


def test_float64_decides_about_what_differs_in_single_precision():
    class Kinked(Plain):
        def __init__(self):
            super().__init__(nn.Sequential(nn.Linear(6, 3)), sgd)

        def forward(self, x):
            return Rough.apply(self.net(x))

    x, y = data().tensors
    assert fit(Kinked, "vmap", dataset=torch.utils.data.TensorDataset(x.float(), y))[0].used_backend == "vmap"


def outcome(**changes):
    tensors = {"losses": torch.ones(3), "w": torch.ones(3, 2), "b": torch.full((3, 1), 1e-9), "n": torch.ones(3).long()}
    tensors.update(changes)
    return proof.Outcome(tensors["losses"], {"w": tensors["w"], "b": tensors["b"]}, {"n": tensors["n"]})


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, None),
        ({"losses": torch.tensor([1.0, 1.0, 1.01])}, "the loss, member 9"),
        ({"w": torch.tensor([[1.0, 1.0], [1.0, 1.01], [1.0, 1.0]])}, "the gradient of w, member 7"),
        ({"b": torch.full((3, 1), -1e-9)}, None),  # rounding, beside the gradient of w
        ({"w": None}, "the gradient of w, which only the looped step has"),
        ({"n": torch.tensor([2, 1, 1])}, "n, member 5"),
        ({"losses": torch.tensor([1.0, float("nan"), 1.0])}, "the loss, member 7"),
    ],
)
def test_the_first_difference(changes, found):
    assert proof.first_difference(outcome(**changes), outcome(), [5, 7, 9]) == found


def test_the_same_nan_is_no_difference():
    broken = {"w": torch.tensor([[float("nan"), 1.0]] * 3)}
    assert proof.first_difference(outcome(**broken), outcome(**broken), [0, 1, 2]) is None


def test_the_trial_leaves_no_trace():
    stack = Stack([Tokens() for _ in range(2)])
    x, y = data(12).tensors
    state, shares = torch.get_rng_state(), random.getstate()
    before = {name: value.clone() for name, value in stack.buffers.items()}
    proof.looped_outcome(stack, [0, 1], (x.view(2, 6, 6), y.view(2, 6)), 0)
    proof.mapped_outcome(stack, [0, 1], (x.view(2, 6, 6), y.view(2, 6)), 0)
    assert torch.equal(state, torch.get_rng_state())
    assert random.getstate() == shares
    assert all(torch.equal(value, before[name]) for name, value in stack.buffers.items())
    assert all(value.grad is None for value in stack.parameters.values())


def test_the_proof_queues_nothing_for_devices_that_are_not_in_use(monkeypatch):
    seed = torch.manual_seed
    x, y = data(12).tensors
    stack = Stack([member(lambda: nn.Linear(6, 3))() for _ in range(2)])
    batch = (x.view(2, 6, 6), y.view(2, 6))
    wanted = proof.looped_outcome(stack, [0, 1], batch, 0)
    seed(7)
    before = torch.get_rng_state()
    monkeypatch.setattr(torch, "manual_seed", lambda number: pytest.fail("keeps a traceback for every such device"))
    found = proof.looped_outcome(stack, [0, 1], batch, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found.losses, wanted.losses)
