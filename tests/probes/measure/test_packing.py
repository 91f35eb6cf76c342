import numpy as np
import torch

from lightning_tricks.probes.measure.packing import to_host


def test_shapes_values_and_precisions_come_back():
    arrays = [torch.randn(3, 4), torch.tensor(7.0, dtype=torch.float64), torch.empty(0, 2), torch.ones(2).bfloat16()]
    arrays.append(torch.randn(5, requires_grad=True))
    back = to_host(arrays)
    for one, other in zip(arrays, back, strict=True):
        assert one.shape == other.shape
        np.testing.assert_array_equal(one.detach().double().numpy(), other)


def test_nothing_is_nothing():
    assert to_host([]) == []


def test_one_copy(monkeypatch):
    copies = []
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda t: copies.append(t.shape) or cpu(t))
    to_host([torch.ones(3), torch.ones(2, 2), torch.ones(())])
    assert copies == [torch.Size([8])]
