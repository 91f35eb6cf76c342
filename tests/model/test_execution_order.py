"""The order of execution and the activation after each layer, by running and by reading the graph."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.model.execution_order import execution_order, functional_activations


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Linear(8, 8)
        self.b = nn.Linear(8, 8)
        self.a = nn.Linear(8, 8)
        self.act = nn.SiLU(inplace=True)
        self.gate = nn.Linear(8, 8)
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        x = self.act(self.a(x))
        x = x + self.b(x)  # meets the activation after the sum
        x = F.leaky_relu(self.c(x) + x, 0.3)
        x = x * torch.sigmoid(self.gate(x))
        return self.out(x.view(-1, 8).softmax(1))


@pytest.mark.parametrize("batch", [None, torch.randn(3, 8)])
def test_by_running_and_by_graph(batch):
    model = Blocks()
    order = execution_order(model, batch)
    names = {module: name for name, module in model.named_modules()}
    found = {names[module]: activation and activation.name for module, activation in order.activations.items()}
    assert list(found) == ["a", "b", "c", "gate", "out"]
    assert found == {"a": "silu", "b": "leaky_relu", "c": "leaky_relu", "gate": "sigmoid", "out": None}
    assert dict(order.activations[model.c].parameters) == {"negative_slope": 0.3}
    assert order.known


def test_attention_and_its_projection():
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
    order = execution_order(layer, torch.randn(2, 3, 8))
    names = {module: name for name, module in layer.named_modules()}
    found = {names[module]: activation and activation.name for module, activation in order.activations.items()}
    assert found == {"self_attn": None, "self_attn.out_proj": None, "linear1": "gelu", "linear2": None}


def test_a_shared_layer_counts_by_its_first_activation():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return torch.tanh(self.layer(torch.relu(self.layer(x))))

    model = Twice()
    for batch in (None, torch.ones(1, 4)):
        assert execution_order(model, batch).activations[model.layer].name == "relu"


def test_a_subclass_with_an_activation_inside():
    class Rectified(nn.Linear):
        def forward(self, x):
            return F.relu(super().forward(x))

    model = nn.Sequential(Rectified(4, 4), nn.Tanh())
    assert execution_order(model, torch.ones(1, 4)).activations[model[0]].name == "relu"


def test_functional_activations_are_found():
    found = functional_activations(nn.Sequential(Blocks()))
    assert [name for _, name in found] == ["leaky_relu", "sigmoid"]
    assert {path for path, _ in found} == {"0"}
