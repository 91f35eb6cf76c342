"""What a loss record tells of the targets, and what a guess of them costs."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.measure.test_losses import SIGNS, WEIGHT, C, N, classes, look, only, shares


def test_rows_of_several_classes_are_counted():
    rows = torch.tensor([[0.0, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 2, 0, 0, 0], [0.5, 0.5, 0, 0, 0], [1, 1, 1, 1, 0]])
    target = torch.cat([rows, rows[:1].expand(N - 5, -1)])
    assert only(look(lambda y: F.cross_entropy(y, target))).several_share == pytest.approx((N - 3) / N)
    maps = target.T[None, :, :, None].expand(2, -1, -1, 3)  # classes in dimension 1
    snapshot = look(lambda y: F.cross_entropy(y.T[None, :, :, None].expand(2, -1, -1, 3), maps))
    assert only(snapshot).several_share == pytest.approx((N - 3) / N)
    assert math.isnan(only(look(lambda y: F.mse_loss(y, target))).several_share)


def test_classes_are_counted():
    target = torch.tensor([0, 0, 3, 3, 3, -100, 1, 0, 0, 0, 0, 0])
    record = only(look(lambda y: F.cross_entropy(y, target)))
    assert (record.class_counts, record.distinct_classes) == ((7, 1, 0, 3, 0), 3)
    both = record.merge(record)
    assert (both.class_counts, both.distinct_classes) == ((14, 2, 0, 6, 0), 3)
    many = only(look(lambda y: F.cross_entropy(y, torch.arange(N)), nn.Linear(6, 200)))
    assert (many.class_counts, many.distinct_classes) == ((), N)
    assert only(look(lambda y: F.cross_entropy(y, shares()))).class_counts == ()


def test_variation_against_numpy():
    seen = []
    record = only(look(lambda y: seen.append(y.detach().numpy()) or F.mse_loss(y, shares())))
    x = seen[0].astype(np.float64)
    assert record.input_variation == pytest.approx(x.std(0).max() / np.sqrt((x * x).mean(0).max()), rel=1e-5)
    assert record.input_resolution == torch.finfo(torch.float32).eps
    assert only(look(lambda y: F.mse_loss(y[:1].expand(N, C), shares()))).input_variation < 1e-6
    assert only(look(lambda y: F.mse_loss(y * 0, shares()))).input_variation == 0.0


def test_moments_against_numpy():
    seen = []
    record = only(
        look(lambda y: seen.append(y.detach().numpy()) or F.cross_entropy(y.relu(), classes(), ignore_index=0))
    )
    x, target = np.maximum(seen[0], 0.0), classes().numpy()
    known = target[target != 0]
    assert len(known) < N
    expected = {
        "input_mean": x.mean(), "input_std": x.std(), "input_min": x.min(), "input_max": x.max(),
        "zero_share": (x == 0).mean(), "sum_error": np.abs(x.sum(1) - 1).max(),
        "log_sum_error": np.abs(np.log(np.exp(x).sum(1))).max(), "chance": math.log(C),
        "target_mean": known.mean(), "target_std": known.std(), "target_min": known.min(), "target_max": known.max(),
    }  # fmt: skip
    for measure, value in expected.items():
        assert getattr(record, measure) == pytest.approx(value, rel=1e-5), measure
    assert record.zero_share > 0.1


def test_targets_that_are_numbers_against_numpy():
    record, target = only(look(lambda y: F.mse_loss(y, shares()))), shares().numpy()
    values = target.mean(), target.std(), target.min(), target.max()
    assert (record.target_mean, record.target_std, record.target_min, record.target_max) == pytest.approx(values)
    assert math.isnan(record.chance)
    assert math.isnan(record.sum_error)
    assert math.isnan(record.log_sum_error)


def test_all_targets_ignored():
    record = only(look(lambda y: F.cross_entropy(y, torch.full((N,), -100))))
    assert math.isnan(record.value)
    assert math.isnan(record.target_mean)
    assert math.isnan(record.target_max)


@pytest.mark.parametrize(("run", "chance"), [
    (lambda y: F.cross_entropy(y, classes(), weight=WEIGHT), math.log(C)),
    (lambda y: F.cross_entropy(y, shares()), math.log(C)),
    (lambda y: F.cross_entropy(y, shares(), weight=WEIGHT), math.nan),
    (lambda y: F.binary_cross_entropy_with_logits(y, shares()), math.log(2)),
    (lambda y: F.binary_cross_entropy_with_logits(y, torch.ones(N, C), pos_weight=3 * torch.ones(C)), 3 * math.log(2)),
    (lambda y: F.binary_cross_entropy(y.sigmoid(), shares(), weight=2 * torch.ones(C)), 2 * math.log(2)),
    (lambda y: F.soft_margin_loss(y, SIGNS), math.log(2)),
    (lambda y: F.multi_margin_loss(y, classes()), math.nan),
    (lambda y: F.l1_loss(y, shares()), math.nan),
])  # fmt: skip
def test_chance(run, chance):
    assert only(look(run)).chance == pytest.approx(chance, nan_ok=True)


def test_chance_is_what_equal_outputs_cost():
    model = nn.Linear(6, C)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    for function, target in ((F.cross_entropy, classes()), (F.binary_cross_entropy_with_logits, shares())):
        record = only(look(lambda y, f=function, t=target: f(y, t, weight=WEIGHT), model))
        assert record.value == pytest.approx(record.chance)
