import pytest
import torch

from lightning_tricks import probe
from lightning_tricks._compat import torch_functions


def looked_at():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    with probe(model) as p:
        model(torch.ones(2, 4)).sum().backward()
    return p.snapshot()


def test_a_block_without_torchs_switch_is_still_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "DisableTorchFunction")
    with torch_functions.unseen():
        pass
    snapshot = looked_at()
    assert [r.name for r in snapshot.weighted] == ["0", "2"]
    assert [r.name for r in snapshot.activations] == ["1"]
    assert not snapshot.not_seen
