"""Batch norms and what surgery makes of them, in ONNX and under the compiler."""

import copy
import importlib.util
import warnings

import pytest
import torch
from torch import nn

from lightning_tricks.nn import BatchRenorm2d, GhostBatchNorm2d, MeanOnlyBatchNorm2d
from lightning_tricks.surgery import convert_batch_norm, fold_batch_norm, insert_batch_norm

X = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def network(norm=nn.BatchNorm2d):
    """Batch norm behind a convolution, and before one with zero padding."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), norm(4), nn.ReLU(), norm(4), nn.Conv2d(4, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 3)
    )
    for _ in range(20):
        model(torch.randn(16, 2, 6, 6) * 2 + 1)
    return model.eval()


MODELS = {
    "ghost": lambda: network(GhostBatchNorm2d),
    "renorm": lambda: network(BatchRenorm2d),
    "mean-only": lambda: network(MeanOnlyBatchNorm2d),
    "converted": lambda: convert_batch_norm(network(), GhostBatchNorm2d),
    "inserted": lambda: insert_batch_norm(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))).eval(),
    "folded": lambda: fold_batch_norm(network()),
}


@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="torch's ONNX exporter needs onnxscript")
@pytest.mark.parametrize("name", MODELS)
def test_onnx(name):
    reference = pytest.importorskip("onnx.reference", reason="the exported model is run by onnx's own interpreter")
    model = MODELS[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own dependencies
        program = torch.onnx.export(model, (X,), dynamo=True, verbose=False)
    evaluator = reference.ReferenceEvaluator(program.model_proto)
    (got,) = evaluator.run(None, {evaluator.input_names[0]: X.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), model(X), rtol=1e-4, atol=1e-5)
    left = [node.op_type for node in program.model_proto.graph.node if node.op_type == "BatchNormalization"]
    assert name != "folded" or not left


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [False, True])
def test_one_graph_under_the_compiler(name, training):
    model = MODELS[name]().train(training and name != "folded")
    twin = copy.deepcopy(model)
    torch.compiler.reset()  # every model here runs the same nn.Sequential.forward, which counts as recompiling it
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X), twin(X), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.state_dict(), twin.state_dict(), rtol=1e-4, atol=1e-5)
