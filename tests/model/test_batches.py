"""What is in a batch, whatever it is packed in."""

import collections
import dataclasses

import pytest
import torch
from torch import nn

from lightning_tricks.model.batches import first_element, number_of_samples, run_model, tensors_in


@dataclasses.dataclass
class Packed:
    name: str
    x: torch.Tensor
    rest: list


def test_first_element():
    x, y = torch.ones(2), torch.zeros(2)
    assert first_element((x, y)) is x
    assert first_element([x]) is x
    assert first_element(x) is x
    batch = {"x": x}
    assert first_element(batch) is batch


def test_how_a_model_is_run():
    model = nn.Identity()
    x = torch.ones(2)
    assert run_model(model, (x, None)) is x
    assert run_model(model, {"x": x}, lambda network, batch: network(batch["x"])) is x


def test_tensors_in_their_order():
    a, b, c, d = (torch.full((), float(i)) for i in range(4))
    tree = (a, {"k": [b, "text", None]}, collections.UserDict(c=c), Packed("n", d, [a, collections.deque([b])]), Packed)
    assert [id(t) for t in tensors_in(tree)] == [id(t) for t in (a, b, c, d, a, b)]


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (torch.zeros(3, 2), 3),
        ((torch.tensor(1.0), torch.zeros(5)), 5),
        ({"x": torch.zeros(4)}, 4),
        (Packed("n", torch.zeros(6), []), 6),
        ("nothing", 1),
    ],
)
def test_number_of_samples(batch, size):
    assert number_of_samples(batch) == size
