"""What outputs answer to their targets, class by class, against a naive count; and what the classes weigh."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.probes import LossRecord, probe

N, C = 40, 4
WEIGHT = torch.tensor([1.0, 2.0, 0.5, 3.0])


def look(loss: Callable[[Tensor], Tensor], net: nn.Module | None = None, x: Tensor | None = None) -> LossRecord:
    torch.manual_seed(0)
    net, x = net or nn.Linear(6, C), torch.randn(N, 6) if x is None else x
    with probe(net) as p:
        loss(net(x)).sum().backward()
    (record,) = p.snapshot().losses
    return record


def counts(numbers: Tensor, classes: int = C) -> tuple[int, ...]:
    return tuple(numbers.flatten().bincount(minlength=classes).tolist())


def numbers(*shape: int) -> Tensor:
    return torch.randint(C, shape or (N,), generator=torch.Generator().manual_seed(1))


def answers(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x).argmax(1)


@pytest.mark.parametrize("ignored", [-100, 2])
@pytest.mark.parametrize("side", [8, 80])
def test_classes_of_positions_are_counted_where_the_outputs_are_looked_at(ignored: int, side: int) -> None:
    """What is wanted and what is answered are thinned alike: outputs that are right are so in every position."""
    torch.manual_seed(0)
    net, x = nn.Conv2d(1, C, 3, padding=1), torch.randn(4, 1, side, side)
    y = answers(net, x)
    record = look(lambda out: F.cross_entropy(out, y, ignore_index=ignored), net, x)
    assert record.wanted == record.answered == record.right == record.class_counts
    if side == 8:
        assert record.wanted == counts(y[y != ignored])


def test_rows_of_classes_count_by_their_largest() -> None:
    y = numbers()
    torch.manual_seed(0)
    net, x = nn.Linear(6, C), torch.randn(N, 6)
    record = look(lambda out: F.cross_entropy(out, F.one_hot(y, C).float(), label_smoothing=0.1), net, x)
    said = answers(net, x)
    assert (record.wanted, record.answered, record.right) == (counts(y), counts(said), counts(y[y == said]))
    assert record.target_means == pytest.approx([count / N for count in counts(y)])
    assert (record.smoothing, record.class_counts, record.class_weights) == (0.1, (), ())


@pytest.mark.parametrize("logits", [True, False])
def test_yes_and_no_are_counted(logits: bool) -> None:
    torch.manual_seed(0)
    net, x = nn.Conv2d(1, C, 1), torch.randn(3, 1, 5, 5)
    y = (numbers(3, C, 5, 5) == 0).float()

    def loss(out: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(out, y) if logits else F.binary_cross_entropy(out.sigmoid(), y)

    record, said = look(loss, net, x), net(x) > 0
    assert record.wanted == counts(y.long(), 2)
    assert record.answered == counts(said.long(), 2)
    assert record.right == counts(y[said == (y > 0)].long(), 2)
    assert record.target_means == pytest.approx(y.mean((0, 2, 3)).tolist())


def test_what_classes_weigh() -> None:
    y, aims = numbers(), F.one_hot(numbers(), C).float()
    assert look(lambda out: F.cross_entropy(out, y, weight=WEIGHT)).class_weights == tuple(WEIGHT.tolist())
    no, yes = look(lambda out: F.binary_cross_entropy_with_logits(out, aims, pos_weight=WEIGHT)).class_weights
    assert no == 1.0
    assert yes == pytest.approx(float((WEIGHT * aims).sum() / aims.sum()))
    each = 0.2 + 0.8 * aims
    found = look(lambda out: F.binary_cross_entropy_with_logits(out, aims, weight=each)).class_weights
    assert found == pytest.approx((0.2, 1.0))
    assert look(lambda out: F.cross_entropy(out, y)).class_weights == ()


def test_counts_add_up_and_a_batch_without_a_yes_does_not_know_its_weight() -> None:
    def record(aims: Tensor) -> LossRecord:
        return look(lambda out: F.binary_cross_entropy_with_logits(out, aims, pos_weight=torch.tensor(3.0)))

    none, some = record(torch.zeros(N, C)), record(F.one_hot(numbers(), C).float())
    both = none.merge(some)
    assert both.wanted == (none.wanted[0] + some.wanted[0], some.wanted[1])
    assert both.class_weights == pytest.approx((1.0, 3.0))
    assert both.target_means == pytest.approx([mean / 2 for mean in some.target_means])
    stored = LossRecord.from_dict(json.loads(json.dumps(both.to_dict())))
    assert (stored.wanted, stored.right, stored.class_weights) == (both.wanted, both.right, both.class_weights)


def test_too_many_classes_are_not_counted() -> None:
    record = look(lambda out: F.cross_entropy(out.repeat(1, 30), numbers(), weight=WEIGHT.repeat(30)))
    assert (record.wanted, record.answered, record.class_weights) == ((), (), ())
