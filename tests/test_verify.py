"""A verification says whether a probed step is the plain one, and what was not seen."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt
from tests.callbacks.trainings import Classifier, Gan, Scheduled, batches, cnn, mlp, same

pytestmark = pytest.mark.usefixtures("nothing_left")
X, Y = batches(1)[0]


class Asking(nn.Module):
    """Computes otherwise where somebody looks on, as torch does by its fast paths."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        looked_at = torch.overrides.has_torch_function((x,))
        return self.two(F.relu(self.one(x)) * (2 if looked_at else 1))


class Counting(nn.Module):
    """Not reproducible: each step is another one."""

    calls = itertools.count()

    def __init__(self):
        super().__init__()
        self.layer, self.still = nn.Linear(6, 3), nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return self.layer(x) * (1 + next(self.calls))


@pytest.mark.parametrize("make", [mlp, cnn])
def test_a_probed_step_is_the_plain_one(make):
    model = make()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    found = lt.verify(model, (X, Y), F.cross_entropy)
    assert found.identical
    assert not found.differing + found.unstable
    assert found.snapshot.weighted
    assert found.snapshot.parameters[0].update > 0
    assert same(before, model.state_dict())
    assert torch.equal(state, torch.get_rng_state())
    tensors = 2 * len(list(model.parameters())) + len(list(model.buffers()))
    others = found.compared - tensors
    assert others >= 4
    assert str(found).startswith(f"The probed step is the plain one, bit for bit: {found.compared} of {found.compared}")


@pytest.mark.parametrize("make", [Classifier, Scheduled, Gan])
def test_a_lightning_module_makes_its_own_step(make):
    found = lt.verify(make(), (X, Y))
    assert found.identical
    assert found.snapshot.weighted
    assert max(record.update for record in found.snapshot.parameters) > 0


def test_what_a_look_changes_is_named():
    found = lt.verify(Asking(), (X, Y), F.cross_entropy)
    assert not found.identical
    assert {"loss", "gradient of two.weight", "one.weight"} <= set(found.differing)
    assert "differs from the plain one in loss, gradient of one.weight, one.weight," in str(found)
    assert "report this" in str(found)


def test_what_plain_steps_leave_different_is_no_fault_of_the_look():
    found = lt.verify(Counting(), (X, Y), F.cross_entropy)
    assert found.identical
    assert {"loss", "layer.weight"} <= set(found.unstable)
    assert "still" not in found.unstable
    assert "Two plain steps already differ in loss" in str(found)


def test_what_is_not_seen_is_printed():
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1).eval().requires_grad_(False)
    model = nn.Sequential(nn.Unflatten(1, (1, 6)), encoder, nn.Flatten(), nn.Linear(6, 3))
    found = lt.verify(model, (X, Y), F.cross_entropy)
    assert found.identical
    assert list(found.not_seen) == ["1"]
    assert "Not seen:\n  1: a frozen transformer in evaluation mode takes torch's fast path" in str(found)


def test_what_cannot_be_verified_says_so():
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got str"):
        lt.verify("net", (X, Y), F.cross_entropy)
    with pytest.raises(TypeError, match="Sequential is no LightningModule: give a loss_fn"):
        lt.verify(mlp(), (X, Y))
    with pytest.raises(TypeError, match=r"a batch must be \(x, y\), got Tensor"):
        lt.verify(mlp(), X, F.cross_entropy)
