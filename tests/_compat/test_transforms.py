"""Whether a call stands under a transform, and what is said where torch does not tell."""

import torch
from torch.autograd import forward_ad

from lightning_tricks._compat.transforms import transforms_are_active
from lightning_tricks.nn import GhostBatchNorm1d


def test_under_transforms_and_without():
    seen = []

    def look(x):
        seen.append(transforms_are_active())
        return x

    assert not transforms_are_active()
    torch.func.vmap(look)(torch.ones(2))
    torch.func.grad(look)(torch.tensor(1.0))
    with forward_ad.dual_level():
        look(None)
    assert seen == [True, True, True]
    assert not transforms_are_active()


def test_without_the_private_names_the_general_way_is_taken(monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(7, 3)
    expected = GhostBatchNorm1d(3, ghost_size=3)(x)
    monkeypatch.delattr(torch._C, "_are_functorch_transforms_active")
    assert transforms_are_active()
    assert torch.equal(GhostBatchNorm1d(3, ghost_size=3)(x), expected)
    monkeypatch.undo()
    monkeypatch.delattr(forward_ad, "_current_level")
    assert transforms_are_active()
