"""One table: every class of lt.nn, and what surgery leaves, under everything in torch that looks inside of a module."""

import contextlib
import copy

import pytest
import torch
from torch import fx, nn

import lightning_tricks as lt
from tests.versions import TORCH

pytestmark = pytest.mark.oracle

DOUBLE = torch.float64
AS_BATCH_NORM = {"r_max": 1.0, "d_max": 0.0, "warmup_steps": 0, "r_max_step": 0, "d_max_step": 0}
SETTINGS = {"GhostBatchNorm": {"ghost_size": 4}, "BatchRenorm": AS_BATCH_NORM, "MeanOnlyBatchNorm": {}}
AUGMENTATIONS = ("RandomAffine", "ElasticDeformation", "AdditiveNoise")
SHAPES = {1: (7, 4), 2: (7, 4, 3, 3), 3: (7, 4, 2, 2, 2)}


def folded():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3, padding=1)
    )
    model.double()(torch.randn(16, 2, 6, 6, dtype=DOUBLE) * 2 + 1)
    return lt.surgery.fold_batch_norm(model.eval())


def inserted():
    return lt.surgery.insert_batch_norm(nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)))


CASES = {
    "AlphaDropout": (lambda: lt.nn.AlphaDropout(0.2), (6, 8)),
    "FeatureAlphaDropout": (lambda: lt.nn.FeatureAlphaDropout(0.2), (6, 4, 3)),
    "ShiftedReLU": (lt.nn.ShiftedReLU, (6, 8)),
    "SELULinear": (lambda: lt.nn.SELULinear(8, 4, dropout=0.1), (6, 8)),
    "SELUConv1d": (lambda: lt.nn.SELUConv1d(3, 4, 3), (6, 3, 7)),
    "SELUConv2d": (lambda: lt.nn.SELUConv2d(3, 4, 3), (6, 3, 5, 5)),
    "SELUConv3d": (lambda: lt.nn.SELUConv3d(3, 4, 2), (6, 3, 3, 3, 3)),
    "SelfNormalizingMLP": (lambda: lt.nn.SelfNormalizingMLP(8, [6, 6], 3), (6, 8)),
    "Standardize": (lambda: lt.nn.Standardize.fit(torch.randn(20, 8, dtype=DOUBLE)), (6, 8)),
    "RandomAffine": (lambda: lt.nn.RandomAffine(flip=0.5), (5, 2, 6, 6)),
    "ElasticDeformation": (lambda: lt.nn.ElasticDeformation(5.0, 2.0), (5, 2, 6, 6)),
    "AdditiveNoise": (lambda: lt.nn.AdditiveNoise((0.1, 0.3), p=0.5), (6, 8)),
    "folded": (folded, (6, 2, 6, 6)),
    "inserted": (inserted, (6, 8)),
}
for kind, settings in SETTINGS.items():
    for dimensions, shape in SHAPES.items():
        CASES[f"{kind}{dimensions}d"] = (
            lambda name=f"{kind}{dimensions}d", settings=settings: getattr(lt.nn, name)(4, **settings), shape,
        )  # fmt: skip


def called(module, x, state=None):
    """A call on statistics of its own, which a transform has to see made."""
    values = module.state_dict() if state is None else state
    torch.manual_seed(5)
    return torch.func.functional_call(module, {name: value.clone() for name, value in values.items()}, (x,))


def same(module, other, x):
    expected = called(module, x)  # before the other one moves statistics that they may share
    torch.manual_seed(5)
    torch.testing.assert_close(other(x), expected)


def by_fx(module, x):
    same(module, fx.symbolic_trace(module), x)


def by_script(module, x):
    same(module, torch.jit.script(module), x)


def by_trace(module, x):
    same(module, torch.jit.trace(copy.deepcopy(module), (x,), check_trace=False), x)


def by_export(module, x):
    same(module, torch.export.export(copy.deepcopy(module), (x,)).module(), x)


def by_export_of_any_batch_size(module, x):
    size = torch.export.Dim("n", min=2, max=64)
    exported = torch.export.export(copy.deepcopy(module), (x,), dynamic_shapes=({0: size},)).module()
    same(module, exported, torch.cat([x, x[:3] * 2 + 1]))


def by_compile(module, x):
    torch.compiler.reset()
    same(module, torch.compile(copy.deepcopy(module), backend="aot_eager", fullgraph=True), x)


def by_vmap(module, x):
    both = torch.stack([x, 2 * x + 1])
    states = {name: torch.stack([value, value]) for name, value in module.state_dict().items()}
    mapped = torch.func.vmap(lambda state, x: called(module, x, state), randomness="same")(states, both)
    torch.testing.assert_close(mapped, torch.stack([called(module, part) for part in both]))


def by_jvp(module, x):
    t, h = torch.randn_like(x), 1e-6
    _, tangent = torch.func.jvp(lambda x: called(module, x), (x,), (t,))
    numerical = (called(module, x + h * t) - called(module, x - h * t)) / (2 * h)
    torch.testing.assert_close(tangent, numerical, rtol=1e-5, atol=1e-6)


def by_gradgradcheck(module, x):
    x = x[:3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: called(module, x), (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: called(module, x), (x,), fast_mode=True)


WAYS = (
    by_fx, by_script, by_trace, by_vmap, by_jvp, by_gradgradcheck, by_export, by_export_of_any_batch_size, by_compile,
)  # fmt: skip


def cannot_be_had(name, way, training):
    """README lists these; each raises."""
    batch_norm = name.startswith(tuple(SETTINGS))
    if name in AUGMENTATIONS:
        return way in (by_fx, by_script) or (way is by_jvp and training and name != "AdditiveNoise")
    if way is by_script:
        return batch_norm
    if way is by_fx:  # torch 2.6 views no buffer in a shape that is traced
        return (batch_norm and training) or (name == "Standardize" and TORCH < (2, 7))
    if way is by_export_of_any_batch_size:
        return name.startswith("Ghost") and training
    return name.startswith("Ghost") and training and way is by_trace


REFUSED = (fx.proxy.TraceError, NotImplementedError, torch.jit.frontend.NotSupportedError, TypeError, ValueError)
REFUSED += (torch._dynamo.exc.Unsupported,)  # by the compiler of torch 2.6, in an export
# One of each kind in every run, which take a moment for each; all of them with --all.
EACH_KIND = ("ShiftedReLU", "SELULinear", "SelfNormalizingMLP", "Standardize", "folded", "inserted", "RandomAffine",
             "GhostBatchNorm2d", "BatchRenorm2d", "MeanOnlyBatchNorm2d", "AlphaDropout")  # fmt: skip


def not_by_old_torch(name, way):
    """Why torch 2.6 cannot do it; an empty string where it can."""
    if way is by_gradgradcheck and name in ("RandomAffine", "ElasticDeformation"):
        return "torch 2.6 has no second derivative of grid_sample"
    if way in (by_export, by_export_of_any_batch_size) and (name == "inserted" or name.startswith("Ghost")):
        return "torch 2.6 warns of its own nodes in an export, or compiles one too often"
    return ""


def rows():
    for way in WAYS:
        for name in CASES:
            for training in (False, True):
                if not (training and name == "folded"):
                    long = way in (by_compile, by_export, by_export_of_any_batch_size) and name not in EACH_KIND
                    yield pytest.param(name, way, training, marks=[pytest.mark.all] if long else [],
                                       id=f"{way.__name__}-{name}-{'train' if training else 'eval'}")  # fmt: skip


@pytest.mark.parametrize(("name", "way", "training"), list(rows()))
@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
def test_looked_into(name, way, training):
    if TORCH < (2, 7) and (reason := not_by_old_torch(name, way)):
        pytest.skip(reason)
    make, shape = CASES[name]
    module, x = make().double().train(training), torch.randn(*shape, dtype=DOUBLE)
    for layer in module.modules():
        if isinstance(layer, lt.nn.AlphaDropout):
            layer.p = 0.0  # what it draws is not the same twice
    if cannot_be_had(name, way, training):
        with pytest.raises(REFUSED):
            way(module, x)
    else:
        way(module, x)


def test_alpha_dropout_is_scripted_for_evaluation():
    module = lt.nn.SELULinear(8, 4, dropout=0.5).eval()
    with contextlib.nullcontext() if TORCH < (2, 7) else pytest.warns(FutureWarning, match="deprecated"):
        scripted = torch.jit.script(module)
    x = torch.randn(5, 8)
    torch.testing.assert_close(scripted(x), module(x))
    with pytest.raises(torch.jit.Error, match="annotated to be ignored"):
        scripted.train()(x)
