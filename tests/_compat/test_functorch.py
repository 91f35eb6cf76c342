"""The building blocks of vmap, and vmap itself where torch lacks one of them."""

import importlib

import pytest
import torch
import torch._functorch.pyfunctorch
import torch._functorch.vmap
from torch import nn

from lightning_tricks._compat import functorch
from lightning_tricks._compat import lightning as _lightning
from lightning_tricks.ensemble.mapping.batched import BatchedLayers
from lightning_tricks.ensemble.mapping.stack import Stack
from tests.ensemble.trainings import Plain, difference, fit, network

NAMES = [
    (torch._C, "DisableTorchFunction"),
    (torch._C._functorch, "_add_batch_dim"),
    (torch._C._functorch, "_remove_batch_dim"),
    (torch._C._functorch, "get_unwrapped"),
    (torch._C._functorch, "is_batchedtensor"),
    (torch._C._functorch, "maybe_get_bdim"),
    (torch._C._functorch, "maybe_get_level"),
    (torch._functorch.pyfunctorch, "retrieve_current_functorch_interpreter"),
    (torch._functorch.vmap, "vmap_increment_nesting"),
]


@pytest.fixture
def without(monkeypatch):
    """The file as it is imported where torch lacks some names (torch's own vmap keeps them)."""

    def reload(names):
        with monkeypatch.context() as patch:
            for owner, name in names:
                patch.delattr(owner, name)
            importlib.reload(functorch)

    monkeypatch.setattr(_lightning, "_said", type(_lightning._said)())  # what was said before is said again
    yield reload
    importlib.reload(functorch)


def both(values, others):
    return values[0] * 2 + others[0], [values[0] - 1]


def test_rows_and_random_numbers():
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    result, (other,) = functorch.call_mapped(both, [x], [y])
    assert torch.equal(result, x * 2 + y)
    assert torch.equal(other, x - 1)
    drawn, _ = functorch.call_mapped(lambda values: (torch.rand_like(values[0]), []), [x])
    assert len(set(drawn.flatten().tolist())) == 12


@pytest.mark.parametrize(("owner", "name"), NAMES, ids=[name for _, name in NAMES])
def test_each_name_taken_away(without, owner, name):
    if name == "is_batchedtensor" and not hasattr(torch.func, "debug_unwrap"):
        pytest.skip("the public counterpart came after torch 2.6")
    without([(owner, name)])
    found = []
    x, y = torch.randn(3, 4), torch.randn(3, 4)

    def step(values, others):
        found.append([functorch.is_mapped(value) for value in (values[0], others[0] + 1, torch.ones(1), 3)])
        return both(values, others)

    if functorch.AVAILABLE:  # the one that has a public counterpart
        assert name == "is_batchedtensor"
        result, (other,) = functorch.call_mapped(step, [x], [y])
    else:
        with pytest.warns(UserWarning, match="other building blocks"):
            result, (other,) = functorch.call_mapped(step, [x], [y])
        functorch.call_mapped(both, [x], [y])  # said once
    assert torch.equal(result, x * 2 + y)
    assert torch.equal(other, x - 1)
    assert found == [[True, True, False, False]]


def test_a_training_goes_on_without_them(without):
    ensemble, _ = fit(lambda: Plain(network(0.0)), "vmap")
    assert len(BatchedLayers(Stack([Plain()]))) > 0
    without(NAMES)
    with pytest.warns(UserWarning, match="same losses") as said:
        slower, _ = fit(lambda: Plain(network(0.0)), "vmap")
    assert len([one for one in said if "building blocks" in str(one.message)]) == 1
    assert slower.used_backend == "vmap"
    assert len(BatchedLayers(Stack([Plain()]))) == 0
    assert difference(slower.networks, ensemble.networks) < 1e-9


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_checkpoint_of_a_training_with_them_goes_on_without_them(without, tmp_path):
    def member():
        return Plain(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).double())

    whole, _ = fit(member, "vmap", max_epochs=3)
    _, run = fit(member, "vmap", max_epochs=2)
    run.save_checkpoint(tmp_path / "half.ckpt")
    without(NAMES)
    with pytest.warns(UserWarning, match="building blocks"):
        resumed, _ = fit(member, "vmap", max_epochs=3, ckpt_path=tmp_path / "half.ckpt")
    assert difference(resumed.networks, whole.networks) < 1e-9
