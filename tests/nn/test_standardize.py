"""Standardize against numpy in float64, in one pass, over every way data may come."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_tricks.nn import Standardize


def truth(x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    values = np.moveaxis(x.numpy().astype(np.longdouble), 1, 0).reshape(x.shape[1], -1)
    return values.mean(1), values.std(1)


def assert_fits(module: Standardize, x: torch.Tensor, rtol: float = 2e-7) -> None:
    mean, std = truth(x)
    np.testing.assert_allclose(module.mean.numpy(), mean.astype(np.float64), rtol=rtol, atol=1e-7)
    np.testing.assert_allclose(module.scale.numpy(), std.astype(np.float64), rtol=rtol)


@pytest.mark.parametrize("shape", [(1000, 7), (50, 3, 9, 9), (40, 5, 11), (6, 2, 4, 5, 6)])
def test_tensors_of_any_shape(shape):
    torch.manual_seed(0)
    x = 3 * torch.randn(shape) + torch.arange(shape[1]).view(1, -1, *[1] * (len(shape) - 2))
    module = Standardize.fit(x)
    assert_fits(module, x)
    y = module(x).transpose(0, 1).flatten(1)
    assert torch.allclose(y.mean(1), torch.zeros(shape[1]), atol=1e-5)
    assert torch.allclose(y.std(1, unbiased=False), torch.ones(shape[1]), atol=1e-5)
    assert torch.allclose(module.inverse(module(x)), x, atol=1e-5)


def test_uneven_and_sorted_batches_change_nothing():
    torch.manual_seed(0)
    x = torch.randn(1003, 4).sort(0).values * 10
    whole = Standardize.fit(x)
    for batches in (x.split(100), x.split(1), (x[:1], x[1:2], x[2:]), [x[:0], x]):
        parts = Standardize.fit(batches)
        assert torch.allclose(parts.mean, whole.mean, rtol=1e-6, atol=1e-7)
        assert torch.allclose(parts.scale, whole.scale, rtol=1e-6)
    assert_fits(whole, x)


def test_an_offset_of_a_million_standard_deviations():
    torch.manual_seed(0)
    x = torch.randn(5000, 3, dtype=torch.float64) + 1e6
    module = Standardize.fit(x.split(64))
    np.testing.assert_allclose(module.scale.numpy(), truth(x)[1].astype(np.float64), rtol=1e-6)


def test_constant_features_get_scale_one():
    x = torch.randn(100, 3)
    x[:, 1] = 0.1  # not a binary fraction: its mean is not exact
    module = Standardize.fit(x.split(7))
    assert float(module.scale[1]) == 1.0
    assert torch.equal(module(x)[:, 1], torch.zeros(100))
    assert Standardize.fit(torch.ones(1, 2)).scale.tolist() == [1.0, 1.0]


def test_loaders_of_tuples_dicts_and_integers():
    torch.manual_seed(0)
    images, labels = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8), torch.zeros(60)
    loader = DataLoader(TensorDataset(images, labels), batch_size=16)
    module = Standardize.fit(loader)
    assert_fits(module, images)
    assert torch.equal(Standardize.fit([{"x": images, "y": labels}]).mean, module.mean)
    assert torch.equal(Standardize.fit([[(images, 1), 2]]).mean, module.mean)
    assert module(images).dtype == torch.float32
    assert float(module(images).mean()) == pytest.approx(0, abs=1e-5)


def test_a_large_tensor_is_taken_in_pieces():
    x = torch.randn(3, 2, 1500, 1500)  # 4.5 million elements a sample
    assert_fits(Standardize.fit(x), x, rtol=1e-6)


def test_it_is_saved_copied_and_cast():
    module = Standardize.fit(torch.randn(50, 4) * 3 + 2)
    net = nn.Sequential(Standardize(4), nn.Linear(4, 2))
    net[0].load_state_dict(module.state_dict())
    x = torch.randn(5, 4)
    for twin in (net[0], copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), module(x))
    assert set(module.state_dict()) == {"mean", "scale"}
    assert module.double()(x.double()).dtype == torch.float64
    assert torch.equal(Standardize(4)(x), x)  # unfitted: the identity
    assert not list(module.parameters())
    with pytest.raises(RuntimeError, match="size mismatch for mean"):
        Standardize(3).load_state_dict(module.state_dict())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_compiled_exported_and_in_onnx():
    module, x = Standardize.fit(torch.randn(50, 3, 4, 4) * 3 + 2).eval(), torch.randn(2, 3, 4, 4)
    assert torch.allclose(torch.compile(module, fullgraph=True, backend="aot_eager")(x), module(x), atol=1e-6)
    assert torch.allclose(torch.export.export(module, (x,)).module()(x), module(x), atol=1e-6)
    pytest.importorskip("onnxscript", reason="torch's exporter needs it")
    onnx = pytest.importorskip("onnx", reason="its reference evaluator runs the graph")
    from onnx.reference import ReferenceEvaluator

    buffer = io.BytesIO()
    torch.onnx.export(module, (x,), buffer, dynamo=True, verbose=False)
    model = onnx.load_from_string(buffer.getvalue())
    (y,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x.numpy()})
    assert torch.allclose(torch.from_numpy(y), module(x), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_arrays_like_tensors(dtype):
    x = np.random.default_rng(0).integers(0, 256, (50, 3, 4)).astype(dtype)
    expected = Standardize.fit(torch.from_numpy(x))
    frozen = x.copy()
    frozen.flags.writeable = False
    for data in (x, frozen, [x[:20], x[20:]], [(x, np.zeros(50))], x[::-1][::-1]):
        fitted = Standardize.fit(data)
        torch.testing.assert_close((fitted.mean, fitted.scale), (expected.mean, expected.scale))
    turned = Standardize.fit(x[::-1, ::-1])
    torch.testing.assert_close(turned.mean, expected.mean.flip(0))


def test_clear_errors():
    with pytest.raises(ValueError, match="num_features has to be positive, not 0"):
        Standardize(0)
    with pytest.raises(ValueError, match=r"batch 0 has shape \(5,\)"):
        Standardize.fit(torch.ones(5))
    with pytest.raises(ValueError, match="got no data"):
        Standardize.fit([])
    with pytest.raises(ValueError, match="batch 1 has 4 features, the ones before 3"):
        Standardize.fit([torch.ones(2, 3), torch.ones(2, 4)])
    bad = torch.ones(4, 3)
    bad[2, 1] = torch.nan
    with pytest.raises(ValueError, match="batch 1: feature 1 has values that are not finite"):
        Standardize.fit([torch.ones(2, 3), bad])
    with pytest.raises(TypeError, match=r"data must be a tensor, a NumPy array or an iterable of batches .* NoneType"):
        Standardize.fit(None)
    with pytest.raises(TypeError, match=r"data is a dataset \(TensorDataset\).* wrap it in a DataLoader"):
        Standardize.fit(TensorDataset(torch.ones(4, 3)))
    with pytest.raises(TypeError, match="batch 0 is str"):
        Standardize.fit(["text"])
    with pytest.raises(ValueError, match=r"fitted to 3 features in dimension 1, the input has shape \[2, 4\]"):
        Standardize(3)(torch.ones(2, 4))
