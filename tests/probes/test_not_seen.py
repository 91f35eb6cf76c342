"""What a probe cannot see is listed, with the reason."""

import pytest
import torch
from torch import nn

from lightning_tricks.probes import probe
from tests.probes.test_probe_edges import snapshot_of


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class Custom(nn.Module):
    def forward(self, x):
        return Doubled.apply(x)


class Kernel(nn.Module):
    def forward(self, x):
        return torch.ops.aten.relu(x)


class Scripted(nn.Module):
    def forward(self, x):
        def relu(y: torch.Tensor) -> torch.Tensor:
            return torch.relu(y)

        return torch.jit.script(relu)(x)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.never = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.used(x)


class Mapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return torch.vmap(lambda row: torch.tanh(self.layer(row)))(x) + torch.relu(x)


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4, dtype=torch.complex64)

    def forward(self, x):
        return torch.relu(torch.tanh(self.layer(x.to(torch.complex64))).abs())


def bent(x):
    return x * torch.exp(-x * x)


class Bent(nn.Module):
    def forward(self, x):
        return x * torch.exp(-x * x)


class Through(nn.Module):
    def __init__(self, g):
        super().__init__()
        self.layer, self.g = nn.Linear(4, 4), g

    def forward(self, x):
        g = self.g[0] if isinstance(self.g, list) else self.g  # in a list: no part of the model's tree
        return self.layer(g(self.layer(x)))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_nothing_is_left_on_scripted_functions():
    call = torch.jit.ScriptFunction.__call__
    model = Through(torch.jit.script(bent))
    one, other = probe(model).open(), probe(model).open()
    other.close()
    assert torch.jit.ScriptFunction.__call__ is not call
    model(torch.ones(2, 4)).sum().backward()
    one.close()
    assert torch.jit.ScriptFunction.__call__ is call
    assert ("bent" in one.snapshot().not_seen, "bent" in other.snapshot().not_seen) == (True, False)


@pytest.mark.parametrize(("make", "entry", "reason"), [
    (lambda: nn.Sequential(Kernel(), nn.Linear(4, 4)), "aten.relu", "called through torch.ops"),
        (lambda: nn.Sequential(Scripted(), nn.Linear(4, 4)), "0", "no torch function was called"),
    (lambda: nn.Sequential(nn.Linear(4, 4), Custom()), "Doubled", "custom autograd function"),
    (lambda: nn.Sequential(torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU())), nn.Linear(4, 2)), "0.0",
     "scripted"),
    (lambda: Through(torch.jit.script(bent)), "bent", "scripted function"),
    (lambda: Through([torch.jit.script(Bent())]), "Bent", "scripted module"),
    (lambda: nn.Sequential(nn.Linear(4, 4), Through(torch.jit.trace(bent, torch.ones(2, 4)))), "1.bent", "scripted"),
    (Unused, "never", "did not run"),
    (Mapped, "tanh", "function transform"),
    (Complex, "layer", "complex"),
    (lambda: nn.LSTM(4, 4), "lstm", "recurrent kernel"),
    (lambda: nn.Sequential(nn.Linear(4, 4), nn.GRUCell(4, 4)), "1", "recurrent kernel"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_what_is_not_seen_is_listed(make, entry, reason):
    model = make()
    snapshot = snapshot_of(model, torch.randn(6, 4), loss=lambda y: (y[0] if isinstance(y, tuple) else y).abs().sum())
    assert reason in snapshot.not_seen[entry], dict(snapshot.not_seen)
