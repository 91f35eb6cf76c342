"""Functions of torch whose batching rule is wrong for some values: mapped, they are those of the loop."""

import functools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_tricks.ensemble.mapping.functions import MappedFunctions
from tests.ensemble.trainings import DOUBLE, Plain, Smooth, difference, fit, separate

pytestmark = pytest.mark.oracle


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


class Tokens(Plain):
    """Classifies by embedded tokens; padding, 0, comes from the second batch on."""

    def __init__(self, embed):
        super().__init__(nn.Linear(4, 3), sgd)
        self.weight = nn.Parameter(torch.randn(5, 4))
        self.embed = embed
        self.double()

    def forward(self, x):
        tokens = (x.abs() * 3).long().clamp(min=int(self.trainer.global_step == 0), max=4)
        return self.net(self.embed(tokens, self.weight).mean(1))


EMBEDDINGS = {
    "functional": lambda x, w: F.embedding(x, w, padding_idx=0),
    "from behind": lambda x, w: F.embedding(x, w, -5),
    "by keywords": lambda x, w: F.embedding(input=x, weight=w, padding_idx=0),
    "torch": lambda x, w: torch.embedding(w, x, 0),
    "aten": lambda x, w: torch.ops.aten.embedding(w, x, 0),
    "aten, by its overload": lambda x, w: torch.ops.aten.embedding.default(w, x, padding_idx=0),
    "no padding": F.embedding,
    "positions": lambda x, w: F.embedding(x, w, 0) + F.embedding(torch.arange(5), w, 0).mean(0),
}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_an_embedding_whose_padding_comes_later(name):
    make = functools.partial(Tokens, EMBEDDINGS[name])
    ensemble, _ = fit(make, "vmap")
    assert ensemble.used_backend == "vmap", ensemble.reason
    assert difference(ensemble.networks, separate(make)[0]) < 1e-10


@pytest.mark.parametrize("options", [{"scale_grad_by_freq": True}, {"max_norm": 0.5}, {"sparse": True}], ids=str)
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_other_embeddings_are_looped_by_name(options):
    make = functools.partial(Tokens, functools.partial(F.embedding, padding_idx=0, **options))
    with pytest.warns(UserWarning, match="embedding with max_norm, scale_grad_by_freq or sparse"):
        ensemble, _ = fit(make, "vmap")
    assert difference(ensemble.networks, separate(make)[0]) < 1e-10


def test_an_index_beyond_the_table_raises_also_later():
    """torch's batching rule reads the next member's weights."""

    def beyond(x, weight):
        return F.embedding(torch.where(x == 0, 7, x), weight)

    with pytest.warns(UserWarning, match="from step 1 on"), pytest.raises(IndexError):
        fit(functools.partial(Tokens, beyond), "vmap")


@pytest.mark.parametrize("name", ["max", "min", "median", "nanmedian"])
@pytest.mark.parametrize("owner", [torch, torch.Tensor])
def test_ties_share_a_gradient_as_in_the_loop(name, owner):
    class Peak(Smooth):
        def training_step(self, batch, batch_idx):
            x, y = batch
            levels = F.hardtanh(self.net(x) * 5)  # many are -1 or 1
            return F.cross_entropy(self.net(x), y) + getattr(owner, name)(levels * self.net[0].weight.sum())

    ensemble, _ = fit(lambda: Peak(sgd), "vmap")
    assert ensemble.used_backend == "vmap", ensemble.reason
    assert difference(ensemble.networks, separate(lambda: Peak(sgd))[0]) < 1e-10


@settings(max_examples=25, deadline=None, database=None)
@given(data=st.data(), rows=st.integers(1, 4), size=st.integers(0, 5))
def test_any_table_any_padding(data, rows, size):
    padding = data.draw(st.none() | st.integers(-rows, rows - 1))
    tokens = torch.tensor(data.draw(st.lists(st.integers(0, rows - 1), min_size=2 * size, max_size=2 * size))).long()
    tokens, weight = tokens.view(2, size), torch.randn(2, rows, 3, dtype=DOUBLE, requires_grad=True)
    with MappedFunctions():
        found = torch.func.vmap(lambda x, w: F.embedding(x, w, padding))(tokens, weight)
    expected = torch.stack([F.embedding(x, w, padding) for x, w in zip(tokens, weight, strict=True)])
    assert torch.equal(found, expected)
    one, two = (torch.autograd.grad(out.square().sum(), weight)[0] for out in (found, expected))
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_every_function_of_a_step_is_heard():
    with MappedFunctions() as functions:
        _ = torch.relu(-torch.ones(2)).sum()
    assert functions.calls == [torch.ones, torch.Tensor.neg, torch.relu, torch.Tensor.sum]
