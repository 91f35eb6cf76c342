"""Trees of tensors: torch's functions, and the same where torch lacks one of them."""

import collections
import importlib

import pytest
import torch.utils._pytree

from lightning_tricks._compat import trees

Point = collections.namedtuple("Point", "x y")
TREES = [
    3, [], {}, [1, (2, {"a": 3, "b": [4]})], Point(1, [2, 3]), collections.OrderedDict(z=1, a=(2, None)), "word",
]  # fmt: skip


@pytest.fixture(params=["tree_flatten", "tree_leaves", "tree_map", "tree_unflatten"])
def without(monkeypatch, request):
    with monkeypatch.context() as patch:
        patch.delattr(torch.utils._pytree, request.param)
        importlib.reload(trees)
    yield trees
    importlib.reload(trees)


@pytest.mark.parametrize("tree", TREES)
def test_as_torchs(without, tree):
    assert without.tree_map is not torch.utils._pytree.tree_map
    assert without.tree_leaves(tree) == torch.utils._pytree.tree_leaves(tree)
    doubled = without.tree_map(lambda value: (value, 1), tree)
    assert doubled == torch.utils._pytree.tree_map(lambda value: (value, 1), tree)
    assert type(doubled) is type(torch.utils._pytree.tree_map(lambda value: (value, 1), tree))
    leaves, spec = without.tree_flatten(tree)
    again = without.tree_unflatten([str(leaf) for leaf in leaves], spec)
    assert again == torch.utils._pytree.tree_map(str, tree)
