"""Random networks through every surgery and start: outputs as promised, or an error that leaves the model as it was."""

import copy
import random
import warnings

import pytest
import torch
from torch import nn

import lightning_tricks as lt

pytestmark = pytest.mark.oracle

WIDTH = 6
FAST, ALL = range(12), range(12, 300)
SEEDS = [*FAST, *(pytest.param(seed, marks=pytest.mark.all) for seed in ALL)]


class Branch(nn.Module):
    """Both of two ways: added, or side by side in a dictionary that is summed."""

    def __init__(self, one, two, named):
        super().__init__()
        self.one, self.two, self.named = one, two, named

    def forward(self, x):
        outputs = {"one": self.one(x), "two": self.two(x)}
        return sum(outputs.values()) if self.named else outputs["one"] + outputs["two"]


class Named(nn.Module):
    """Returns a dictionary: what it predicts, and the features below."""

    def __init__(self, body, head):
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x):
        features = self.body(x)
        return {"predicted": self.head(features), "features": features}


def joined(output):
    return torch.cat(list(output.values()), 1) if isinstance(output, dict) else output


class Twice(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(self.inner(x))


def part(draw, depth):
    """A network from WIDTH to WIDTH features."""
    shared = nn.Linear(WIDTH, WIDTH)
    tied = nn.Linear(WIDTH, WIDTH)
    tied.weight = shared.weight
    makers = [
        lambda: nn.Linear(WIDTH, WIDTH, bias=draw.random() < 0.7),
        lambda: nn.BatchNorm1d(WIDTH, affine=draw.random() < 0.8),
        lambda: nn.ReLU(inplace=draw.random() < 0.5),
        nn.Tanh,
        lambda: nn.Dropout(0.2),
        lambda: nn.LayerNorm(WIDTH),
        lambda: lt.nn.MeanOnlyBatchNorm1d(WIDTH),
        lambda: nn.Sequential(shared, nn.ReLU(), tied),
        lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 2, 3, padding=1), nn.BatchNorm1d(2), nn.Flatten()),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
    ]
    if depth:
        makers += [
            lambda: Branch(part(draw, depth - 1), part(draw, depth - 1), draw.random() < 0.5),
            lambda: Twice(part(draw, depth - 1)),
            lambda: part(draw, depth - 1),
        ]
    return nn.Sequential(*(draw.choice(makers)() for _ in range(draw.randint(1, 4))))


def network(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    body, head = nn.Sequential(nn.Linear(WIDTH, WIDTH), part(draw, 2)), nn.Linear(WIDTH, 2)
    model = (Named(body, head) if seed % 3 == 1 else nn.Sequential(*body, head)).double()
    for _ in range(3):
        model(batch(seed))
    return model


def batch(seed):
    return torch.randn(16, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.5


def changed(function, model):
    """The model after surgery; after an error it is as it was, and there is none."""
    before, structure = copy.deepcopy(model.state_dict()), repr(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(model)
        except (ValueError, TypeError) as error:
            told = str(error)
    assert told
    assert repr(model) == structure
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    return None


def convert(cls, **settings):
    return lambda model: lt.surgery.convert_batch_norm(model, cls, **settings)


KEEPING = {
    "fold": lt.surgery.fold_batch_norm,
    "fold by a run": lambda model: lt.surgery.fold_batch_norm(model, batch(0)),
    "ghost": convert(lt.nn.GhostBatchNorm1d, ghost_size=4),
    "renorm": convert(lt.nn.BatchRenorm1d),
    "batch norm": convert(nn.BatchNorm1d),
    "widen": lambda model: lt.surgery.widen_for_dropout(model, 0.4, weights="copied"),
    "widen by a run": lambda model: lt.surgery.widen_for_dropout(model, weights="copied", batch=batch(0)),
    "there and back": lambda model: convert(nn.BatchNorm1d)(convert(lt.nn.GhostBatchNorm1d, ghost_size=4)(model)),
}
CHANGING = {
    "widen": lt.surgery.widen_for_dropout,
    "insert": lt.surgery.insert_batch_norm,
    "insert by a run": lambda model: lt.surgery.insert_batch_norm(model, batch(0)),
    "self_normalize": lambda model: lt.surgery.self_normalize(model, remove_batch_norm=True),
    "swap": lambda model: lt.surgery.swap_activation(model, "relu", "gelu"),
    "population": lambda model: lt.surgery.update_population_statistics(model, [batch(1), batch(2)]),
    "lsuv": lambda model: lt.init.lsuv_(model, batch(0)),
    **{scheme: lambda model, scheme=scheme: lt.init.initialize(model, scheme)
       for scheme in ("auto", "he_normal", "glorot_uniform", "orthogonal", "delta_orthogonal")},
}  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
def test_outputs_are_kept(seed):
    model, x = network(seed).eval(), batch(seed + 1)
    expected = joined(model(x))
    for name, function in KEEPING.items():
        other = changed(function, copy.deepcopy(model))
        assert other is not None, name
        assert torch.allclose(joined(other(x)), expected, rtol=1e-5, atol=1e-6), name


def trains(model, x):
    """Whether it has a gradient: not where a module overwrites what the one before it needs for its own."""
    try:
        joined(model.train()(x)).sum().backward()
    except RuntimeError as error:
        if "modified by an inplace operation" in str(error):
            return False
        raise
    return True


@pytest.mark.parametrize("seed", SEEDS)
def test_what_changes_the_network_leaves_one_that_trains(seed):
    model, x = network(seed), batch(seed + 1)
    if not trains(copy.deepcopy(model), x):
        model.apply(lambda module: vars(module).update(inplace=False) if hasattr(module, "inplace") else None)
    expected = joined(copy.deepcopy(model).eval()(x)).shape
    for name, function in CHANGING.items():
        other = changed(function, copy.deepcopy(model))
        if other is None:
            continue
        joined(other.train()(x)).square().mean().backward()
        assert all(bool(value.isfinite().all()) for value in other.state_dict().values()), name
        gradients = [value.grad for value in other.parameters() if value.grad is not None]
        assert gradients, name
        assert all(bool(gradient.isfinite().all()) for gradient in gradients), name
        assert joined(other.eval()(x)).shape == expected, name
