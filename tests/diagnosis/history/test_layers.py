"""Which layers are judged."""

import pytest
import torch
from torch import nn

from lightning_tricks.diagnosis.history import layers
from lightning_tricks.probes import probe


class Guarded(nn.Module):
    """A clamp far outside is no activation that anybody meant."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three, self.act = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 1), nn.Tanh()

    def forward(self, x):
        return self.three(self.act(self.two(self.one(x).clamp(-100.0, 100.0))))


def test_what_nobody_knows_as_an_activation_is_shown_and_not_judged():
    with probe(Guarded()) as p:
        p._model(torch.randn(50, 4)).square().mean().backward()
    snapshot = p.snapshot()
    assert [record.name for record in layers.hidden_activations(snapshot)] == ["clamp", "act"]
    assert [record.name for record in layers.judged_activations(snapshot)] == ["act"]
    assert snapshot.activations[0].linearity > 0.999


@pytest.mark.parametrize(
    ("first", "x", "read"),
    [
        (nn.Identity(), torch.randn(50, 4), "1"),
        (nn.Softplus(), torch.randn(50, 4), None),
        (nn.Embedding(9, 4), torch.arange(50) % 9, None),
    ],
    ids=["data", "an activation before", "an embedding"],
)
def test_the_input_is_what_the_first_weights_read_of_the_data(first, x, read):
    network = nn.Sequential(first, nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    with probe(network) as p:
        network(x).square().mean().backward()
    layer = layers.input_layer(p.snapshot())
    assert (layer and layer.name) == read
