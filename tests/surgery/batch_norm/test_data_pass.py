"""Where a pass over the data stops, whatever the batches are packed in."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from lightning_tricks.surgery.batch_norm.data_pass import DataPass

X = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))


@dataclass
class Sample:
    name: str
    x: torch.Tensor


PACKED = {
    "tensor": (lambda x: x, lambda batch: batch),
    "tuple": (lambda x: (x, x[:, 0]), lambda batch: batch[0]),
    "mapping": (lambda x: {"name": ["a"], "x": x}, lambda batch: batch["x"]),
    "nested": (lambda x: [{"scale": torch.tensor(2.0), "inputs": {"x": x}}], lambda batch: batch[0]["inputs"]["x"]),
    "dataclass": (lambda x: Sample("a", x), lambda batch: batch.x),
}


@pytest.mark.parametrize("packing", PACKED)
def test_it_stops_behind_the_batch_that_completes_the_samples(packing):
    pack, unpack = PACKED[packing]
    norm = nn.BatchNorm1d(3)
    loader = [pack(part) for part in X.split(2)]
    data = DataPass(norm, loader, lambda network, batch: network(unpack(batch)), num_samples=5)
    moments = data.collect({"norm": norm})["norm"].moments
    assert moments.count == 6
    torch.testing.assert_close(moments.mean, X[:6].double().mean(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(moments.m2 / 5, X[:6].double().var(0), rtol=1e-6, atol=1e-6)


def test_the_order_of_the_calls_and_their_number():
    first, second = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    model = nn.ModuleDict({"b": second, "a": first})
    data = DataPass(model, [X], lambda network, batch: network["b"](network["b"](network["a"](batch))))
    assert list(data.calls({"b": second, "a": first}).items()) == [("a", 1), ("b", 2)]


def test_nothing_to_see_is_an_error(nothing_left):
    norm = nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="the loader is empty"):
        DataPass(norm, []).collect({"norm": norm})
    with pytest.raises(ValueError, match="the loader is empty"):
        DataPass(norm, []).calls({"norm": norm})
    assert not norm._forward_pre_hooks
