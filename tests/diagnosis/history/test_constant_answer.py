"""The best constant answer against one that is found by training a bias."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.diagnosis.history.constant_answer import best_constant
from lightning_tricks.probes import LossRecord, probe

WEIGHT = torch.tensor([1.0, 4.0, 0.5])
Y = torch.tensor([0] * 700 + [1] * 200 + [2] * 100)
YES = torch.tensor([[1.0]] * 30 + [[0.0]] * 970)
SHARES = F.one_hot(Y, 3).float()


def record(loss: Callable[[Tensor], Tensor], outputs: int) -> LossRecord:
    net = nn.Linear(2, outputs)
    with probe(net) as p:
        loss(net(torch.randn(1000, 2))).backward()
    return p.snapshot().losses[0]


def of_a_bias(loss: Callable[[Tensor], Tensor], outputs: int) -> float:
    bias = torch.zeros(outputs, requires_grad=True)
    optimizer = torch.optim.LBFGS([bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(bias.expand(1000, outputs))
        value.backward()
        return value

    optimizer.step(closure)  # type: ignore[arg-type]
    return closure().item()


@pytest.mark.parametrize(
    ("loss", "outputs"),
    [
        (lambda out: F.cross_entropy(out, Y), 3),
        (lambda out: F.cross_entropy(out, Y, weight=WEIGHT), 3),
        (lambda out: F.cross_entropy(out, Y, label_smoothing=0.2), 3),
        (lambda out: F.cross_entropy(out, SHARES), 3),
        (lambda out: F.binary_cross_entropy_with_logits(out, YES), 1),
        (lambda out: F.binary_cross_entropy_with_logits(out, YES, pos_weight=torch.tensor(5.0)), 1),
    ],
    ids=["classes", "weights", "smoothing", "rows", "binary", "pos_weight"],
)
def test_nothing_that_does_not_look_is_better(loss: Callable[[Tensor], Tensor], outputs: int) -> None:
    seen = record(loss, outputs)
    constant = best_constant([seen])
    assert constant is not None
    best = of_a_bias(loss, outputs)
    assert constant.loss == pytest.approx(best, rel=0.02)
    if not seen.smoothing:
        assert constant.loss_on(seen) == pytest.approx(best, rel=1e-3)
    assert constant.frequent == (1 if seen.class_weights == (1.0, 4.0, 0.5) else 0)


def test_sorted_batches_soft_targets_and_old_records_have_none() -> None:
    alone = [torch.full_like(Y, label) for label in range(3)]
    sorted_batches = [record(functools.partial(F.cross_entropy, target=y), 3) for y in alone]
    assert best_constant(sorted_batches) is None
    soft = record(lambda out: F.binary_cross_entropy_with_logits(out, torch.rand(1000, 1)), 1)
    assert best_constant([soft]) is None
    assert best_constant([LossRecord("loss", "cross_entropy", class_counts=(9, 1))]) is None


def test_classes_that_are_too_many_to_be_counted_have_none() -> None:
    many = record(lambda out: F.cross_entropy(out, torch.arange(1000)), 1000)
    assert many.wanted == ()
    assert best_constant([many]) is None
