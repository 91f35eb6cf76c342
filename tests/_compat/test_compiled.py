"""What a compiled module was before, and modules of a torch that marks no compiled ones."""

import sys

import torch
from torch import nn

from lightning_tricks._compat.compiled import eagerly, has_compiled_parts, original_of


def test_the_original_of_a_compiled_module():
    plain = nn.Linear(2, 2)
    assert original_of(torch.compile(plain, backend="eager")) is plain
    assert original_of(plain) is plain


def test_compiled_parts_are_known_by_their_marks():
    in_place = nn.Sequential(nn.Linear(2, 2))
    assert not has_compiled_parts(in_place)
    in_place[0].compile(backend="eager")
    assert has_compiled_parts(in_place)
    assert has_compiled_parts(nn.Sequential(torch.compile(nn.Linear(2, 2), backend="eager")))
    vars(in_place[0])["_compiled_call_impl"] = None
    assert not has_compiled_parts(in_place)


def test_what_has_no_mark_is_its_own_original(monkeypatch):
    class Renamed(nn.Module):
        """A compiled module of a torch that calls _orig_mod otherwise."""

        def __init__(self):
            super().__init__()
            self.original = nn.Linear(2, 2)

    monkeypatch.delattr(nn.Module, "_compiled_call_impl", raising=False)
    net = Renamed()
    assert original_of(net) is net
    assert not has_compiled_parts(net)


def test_without_a_compiler_a_block_is_as_it_is(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    with eagerly():
        assert torch.equal(nn.Identity()(torch.ones(2)), torch.ones(2))
    assert "torch._dynamo" not in sys.modules
