"""The quiet pass: whatever a forward does, the model is as before."""

import pytest
import torch
from torch import nn

import lightning_tricks.init as lt_init
from lightning_tricks.model.isolated import quiet


class Busy(nn.Module):
    """Writes buffers in place and anew, draws random numbers, and drops."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.norm, self.drop = nn.BatchNorm1d(4), nn.Dropout(0.9)
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x):
        self.count += 1
        x = self.drop(self.norm(self.layer(x))) + torch.rand(4)
        self.last = x.mean(0)
        return x


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_restored(fails):
    torch.manual_seed(0)
    model = Busy()
    model.drop.eval()
    buffers = dict(model.named_buffers())
    values = {key: buffer.clone() for key, buffer in buffers.items()}
    flags = [module.training for module in model.modules()]
    state, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    try:
        with quiet(model):
            assert not model.training
            assert model.norm.training
            assert not model(torch.randn(8, 4)).requires_grad
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert all(buffer is buffers[key] for key, buffer in model.named_buffers())
    assert all(torch.equal(buffer, values[key]) for key, buffer in model.named_buffers())
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_a_compiled_model_is_heard(how):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 4))
    x = torch.randn(256, 8)
    if how == "wrapped":
        model = torch.compile(plain, backend="eager")
    else:
        model = plain
        model.compile(backend="eager")
    model(x)
    report = lt_init.Report()
    lt_init.initialize(model, "auto", x, report=report)
    assert report.changed[0].what.endswith("(gelu)")
    lt_init.lsuv_(model, x)
    assert float(model(x).detach().std(unbiased=False)) == pytest.approx(1.0, abs=1e-3)
