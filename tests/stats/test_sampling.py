import itertools

import numpy as np
import pytest
import torch

from lightning_tricks.stats import sample

SHAPES = [((300, 7), -1), ((4, 100, 5), -1), ((3, 8, 9, 4), -1), ((6, 5, 16, 16), -3), ((2, 5, 1000), -2)]
SHAPES += [((5, 64, 64), -3), ((2, 3, 4, 5, 6), -4), ((1, 4, 1, 1), -3), ((100,), -1), ((40, 30), 0), ((50, 3, 3), -2)]


def patterns_by_units(x, axis, maximum, **options):
    s = sample(x, axis, maximum, **options)
    return s.values if s.dim == 0 else s.values.T


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_none_takes_every_pattern_of_every_unit(shape, axis):
    x = torch.arange(float(np.prod(shape))).reshape(shape)
    taken = patterns_by_units(x, axis, None)
    array = x.numpy().reshape(-1, 1) if axis == 0 else np.moveaxis(x.numpy(), axis, -1).reshape(-1, shape[axis])
    np.testing.assert_array_equal(taken.numpy(), array)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("maximum", [1, 2, 7, 50, 333])
def test_at_most_so_many_patterns_all_different_and_all_units(shape, axis, maximum):
    x = torch.arange(float(np.prod(shape))).reshape(shape)
    taken = patterns_by_units(x, axis, maximum)
    patterns = x.numel() // (1 if axis == 0 else shape[axis])
    assert taken.shape[1] == (1 if axis == 0 else shape[axis])
    assert min(maximum, patterns) / 5 < len(taken) <= maximum or len(taken) == 1
    assert len(taken.unique()) == taken.numel()
    array = x.numpy().reshape(-1, 1) if axis == 0 else np.moveaxis(x.numpy(), axis, -1).reshape(-1, shape[axis])
    assert set(map(tuple, taken.tolist())) <= set(map(tuple, array.tolist()))


@pytest.mark.parametrize(("width", "maximum"), [*itertools.product([8, 16, 32, 28], [64, 100, 256, 500])])
def test_every_column_and_row_of_an_image_is_met(width, maximum):
    column = torch.arange(float(width)).expand(16, 3, width, width)
    for x in (column, column.mT):
        taken = patterns_by_units(x, -3, maximum)
        assert len(taken.unique()) == width
        assert torch.bincount(taken[:, 0].long()).max() <= 3 * len(taken) / width + 2
    sequence = torch.arange(float(width)).reshape(1, width, 1).expand(64, width, 3)
    assert len(patterns_by_units(sequence, -1, maximum).unique()) == width


@pytest.mark.parametrize("maximum", [None, 20, 100])
def test_the_same_positions_whatever_the_memory_format(maximum):
    x = torch.randn(4, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    other = x.contiguous(memory_format=torch.channels_last)
    expected = patterns_by_units(x, -3, maximum)
    torch.testing.assert_close(patterns_by_units(other, -3, maximum), expected, rtol=0, atol=0)
    for dim, layout in itertools.product((0, 1), (x, other)):
        s = sample(layout, -3, maximum, dim=dim)
        assert s.dim == dim
        torch.testing.assert_close(s.values if dim == 0 else s.values.T, expected, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(10, 4), (3, 4, 5, 5), (0, 4)])
def test_a_copy_shares_no_memory_and_what_is_no_copy_does_not_change_the_tensor(shape):
    x = torch.ones(shape)
    taken = sample(x, 1 - len(shape), None, copy=True).values
    x.zero_()
    assert torch.equal(taken, torch.ones_like(taken))


def test_half_precision_is_raised_and_double_kept():
    assert sample(torch.ones(3, 2, dtype=torch.bfloat16), -1, None).values.dtype == torch.float32
    assert sample(torch.ones(3, 2, dtype=torch.float16), -1, None).values.dtype == torch.float32
    assert sample(torch.ones(3, 2, dtype=torch.float64), -1, None).values.dtype == torch.float64
    assert not sample(torch.ones(3, 2, requires_grad=True), -1, None).values.requires_grad
