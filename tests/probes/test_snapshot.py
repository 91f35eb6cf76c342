"""Merging: two ranks, or two steps of a window, are one; plain JSON goes out and comes back."""

import json
import math

import pytest
import torch
from torch import nn

from lightning_tricks.probes import Snapshot, probe

from . import networks


def take(model, x, loss, step=0, **options):
    model.zero_grad()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with probe(model, optimizer, **options) as p:
        loss(model(x)).backward()
        optimizer.step()
    return p.snapshot()


def assert_same(one, other, rel=1e-9, but=()):
    assert [r.name for r in one.records()] == [r.name for r in other.records()]
    for a, b in zip(one.records(), other.records(), strict=True):
        mine = {k: v for k, v in a.measures().items() if k not in but}
        assert mine == pytest.approx({k: b.measures()[k] for k in mine}, rel=rel, abs=1e-12, nan_ok=True), a.name


def test_two_ranks_are_one_batch():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    x = torch.randn(24, 4, dtype=torch.float64)
    joint = take(net, x, lambda y: y.square().sum())
    parts = [take(net, part, lambda y: y.square().sum()) for part in x.split([10, 14])]
    merged = parts[0].merge(parts[1])
    assert_same(merged, joint, but=("gradient",))  # which ranks have reduced before
    assert [r.patterns for r in merged.weighted] == [24, 24, 24]
    assert [r.elements for r in merged.weighted] == [r.elements for r in joint.weighted]
    assert merged.activations[0].histogram == pytest.approx(joint.activations[0].histogram)


def test_means_of_ranks_are_means_of_the_batch():
    """A rank's loss is the mean of its half; its probe takes off the number of ranks."""
    net, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).double(), torch.randn(20, 4).double()
    joint = take(net, x, lambda y: y.square().mean())
    halves = []
    for part in x.chunk(2):
        p = probe(net)
        p.ranks = 2
        with p:
            net(part).square().mean().backward()
        halves.append(p.snapshot())
    merged = halves[0].merge(halves[1])
    assert [r.error_signal for r in merged.weighted] == pytest.approx([r.error_signal for r in joint.weighted])
    assert merged.loss == pytest.approx(joint.loss)


def test_a_window_of_steps_keeps_the_later_step_and_all_layers():
    net = networks.mlp()
    one, other = (take(net, torch.randn(5, 6), lambda y: y.sum()) for _ in range(2))
    few = Snapshot(3, 1.0, activations=other.activations[:1], not_seen={"a": "b"})
    merged = one.merge(few)
    assert merged.step == 3
    assert len(merged.activations) == 2
    assert merged.activations[0].patterns == 10
    assert merged.not_seen == {"a": "b"}


def test_plain_json_and_back():
    net = networks.cnn()
    x = torch.randn(3, 2, 8, 8)
    x[0, 0, 0, 0] = math.nan
    snapshot = take(net, x, lambda y: y.sum(), step=0)
    text = json.dumps(snapshot.to_dict(), allow_nan=False)
    back = Snapshot.from_dict(json.loads(text))
    assert back.to_dict() == snapshot.to_dict()
    assert [r.name for r in back.records()] == [r.name for r in snapshot.records()]
    assert back.activation("2").function == "relu"
    assert back.activation("nowhere") is None
    assert back.activations[0].sums is None
    light = snapshot.light()
    assert light.to_dict() == snapshot.to_dict()
    assert light.weighted[0].sums is None
    assert light.merge(snapshot).weighted[0] == light.weighted[0]


def test_what_older_records_lack_has_its_default():
    net = networks.cnn()
    x, target = torch.randn(4, 2, 8, 8), torch.tensor([0, 1, 2, 1])
    snapshot = take(net, x, lambda y: torch.nn.functional.cross_entropy(y, target))
    values = json.loads(json.dumps(snapshot.to_dict()))
    for key in ("losses", "normalizations", "recent_losses", "validation_loss", "learning_rate", "ended"):
        del values[key]
    for parameter in values["parameters"]:
        del parameter["trainable"], parameter["optimized"]
    for layer in values["weighted"]:
        del layer["with_gradient"]
    old = Snapshot.from_dict(values)
    assert old.losses == old.normalizations == old.recent_losses == ()
    assert math.isnan(old.validation_loss)
    assert not old.ended
    assert old.parameters[0].optimized
    assert old.weighted[0].with_gradient
    assert [r.name for r in snapshot.normalizations] == ["1", "5"]
    assert snapshot.losses[0].function == "cross_entropy"
    assert snapshot.only(lambda name: name == "5").normalizations == snapshot.normalizations[1:]


def test_losses_between_go_out_and_come_back():
    snapshot = Snapshot(3, recent_losses=(0.5, math.nan, math.inf), validation_loss=0.25, learning_rate=0.1, ended=True)
    back = Snapshot.from_dict(json.loads(json.dumps(snapshot.to_dict(), allow_nan=False)))
    assert back.recent_losses[0] == 0.5
    assert [math.isfinite(loss) for loss in back.recent_losses] == [True, False, False]
    assert (back.validation_loss, back.learning_rate, back.ended) == (0.25, 0.1, True)
    assert math.isnan(snapshot.merge(snapshot).recent_losses[1])


def test_two_ranks_losses_and_normalisations():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).double().eval()
    net[0].weight.requires_grad_(False)
    x, target = torch.randn(24, 4, dtype=torch.float64), torch.randint(3, (24,))

    def loss(wanted):
        return lambda y: torch.nn.functional.cross_entropy(y, wanted)

    joint = take(net, x, loss(target))
    parts = [take(net, x[at], loss(target[at])) for at in (slice(10), slice(10, 24))]
    merged = parts[0].merge(parts[1])
    first, second = (part.losses[0].input_variation for part in parts)
    expected = joint.losses[0].measures() | {"input_variation": math.sqrt((10 * first**2 + 14 * second**2) / 24)}
    assert merged.losses[0].measures() == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert merged.losses[0].class_counts == joint.losses[0].class_counts == tuple(target.bincount(minlength=3).tolist())
    assert merged.losses[0].patterns == 24
    one, two = (part.normalizations[0] for part in parts)
    both = merged.normalizations[0]
    assert both.mean_gap**2 == pytest.approx((10 * one.mean_gap**2 + 14 * two.mean_gap**2) / 24)
    assert both.variance_ratio == pytest.approx(math.sqrt(one.variance_ratio * two.variance_ratio))
    assert [r.trainable for r in merged.parameters] == [False, *[True] * 5]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_merging_what_is_not_finite_warns_nobody(value):
    net = networks.mlp()
    x = torch.randn(6, 6)
    x[2, 2] = value
    bad = take(net, x, lambda y: y.sum())
    merged = bad.merge(take(net, x, lambda y: y.sum())).merge(take(net, torch.randn(3, 6), lambda y: y.sum()))
    assert merged.weighted[0].nonfinite
    assert merged.weighted[0].nonfinite_input
