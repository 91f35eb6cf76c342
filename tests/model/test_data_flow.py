"""Who feeds whom: the same answers from a run and from the graph, on networks whose flow is known."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.model.data_flow import trace

X = torch.randn(2, 4)
WAYS = pytest.mark.parametrize("batch", [X, None], ids=["run", "graph"])


class Net(nn.Module):
    """Registered back to front; b's output is used twice, and c's weight as well."""

    def __init__(self):
        super().__init__()
        self.d, self.c, self.b, self.a = (nn.Linear(4, 4) for _ in range(4))
        self.unused = nn.Linear(4, 4)

    def forward(self, x):
        x = self.b(self.a(x))
        y = self.c(x) + x.view(x.shape)
        return self.d(F.relu(y)) @ self.c.weight


def is_linear(module):
    return isinstance(module, nn.Linear)


@WAYS
def test_order_sources_and_uses(batch):
    net = Net()
    flow = trace(net, is_linear, is_linear, batch)
    a, b, c, d = flow.calls
    assert [call.module for call in flow.calls] == [net.a, net.b, net.c, net.d]
    assert (a.source, b.source, c.source) == (None, a, b)
    assert d.source is None  # a sum and a relu stand between
    assert [call.uses for call in flow.calls] == [1, 2, 1, 1]
    assert flow.behind(b) == [c]
    assert flow.of(net.unused) == []
    assert [call.leads_on for call in flow.calls] == [True, True, True, False]
    assert flow.is_borrowed(net.c)
    assert not flow.is_borrowed(net.d)


@WAYS
def test_a_module_called_twice_has_two_calls(batch):
    layer = nn.Linear(4, 4)
    first, second = trace(nn.Sequential(layer, layer), is_linear, is_linear, batch).of(layer)
    assert second.source is first


def test_dimensions_are_known_from_a_run_only():
    net = nn.Sequential(nn.Linear(4, 4))
    assert trace(net, is_linear, is_linear, X.view(2, 1, 4)).calls[0].dims == 3
    assert trace(net, is_linear, is_linear).calls[0].dims is None


def test_an_output_put_aside_counts_as_used():
    class Recorder(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            self.kept = self.a(x)
            return self.b(self.kept)

    assert trace(Recorder(), is_linear, is_linear, X).calls[0].uses == 2


def test_a_forward_that_branches_on_values_asks_for_a_batch():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match=r"cut: the forward of Branching cannot be read .* pass batch="):
        trace(Branching(), is_linear, is_linear, what="cut")
    assert trace(Branching(), is_linear, is_linear, X).calls == []


def test_the_model_is_left_as_it_was(nothing_left):
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    state, random = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    trace(net, is_linear, is_linear, X)
    torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(m.training and not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())
