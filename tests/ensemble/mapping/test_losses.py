"""Stacked cross-entropy against torch's, member by member."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_tricks.ensemble.mapping.losses import stacked_cross_entropy


@pytest.mark.parametrize("classes", [2, 10, 64, 65])
def test_losses_and_gradients_with_ignored_patterns(classes):
    logits = torch.randn(3, 7, classes, dtype=torch.float64, requires_grad=True)
    target = torch.randint(classes, (3, 7))
    target[1, 2:4] = -100
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = stacked_cross_entropy(logits, target)
    expected = torch.stack([F.cross_entropy(own, y) for own, y in zip(logits, target, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    (one,) = torch.autograd.grad((found * weights).sum(), logits)
    (two,) = torch.autograd.grad((expected * weights).sum(), logits)
    torch.testing.assert_close(one, two, rtol=1e-13, atol=1e-13)


def test_a_member_whose_patterns_are_all_ignored_has_no_loss_as_with_torch():
    losses = stacked_cross_entropy(torch.zeros(2, 3, 4), torch.tensor([[0, 1, 2], [-100, -100, -100]]))
    assert losses.isnan().tolist() == [False, True]


def test_a_class_that_does_not_exist():
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        stacked_cross_entropy(torch.zeros(1, 2, 3), torch.tensor([[0, 3]]))


@settings(max_examples=30, deadline=None, database=None)
@given(data=st.data(), members=st.integers(1, 4), patterns=st.integers(1, 6), classes=st.integers(2, 70))
def test_any_logits_and_targets(data, members, patterns, classes):
    targets = st.sampled_from([-100, *range(classes)])
    target = torch.tensor(data.draw(st.lists(targets, min_size=members * patterns, max_size=members * patterns)))
    target = target.view(members, patterns)
    scale = data.draw(st.sampled_from([0.0, 1e-3, 1.0, 50.0]))
    logits = (scale * torch.randn(members, patterns, classes, dtype=torch.float64)).requires_grad_()
    found = stacked_cross_entropy(logits, target)
    expected = torch.stack([F.cross_entropy(own, y) for own, y in zip(logits, target, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, equal_nan=True)
    counted = (target != -100).any(1)
    (one,) = torch.autograd.grad(found[counted].sum(), logits)
    (two,) = torch.autograd.grad(expected[counted].sum(), logits)
    torch.testing.assert_close(one[counted], two[counted], rtol=1e-12, atol=1e-12)
