"""Where two runs part is told where it begins, and two seeds of one training do not part."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

import lightning_tricks as lt
from tests.comparison.runs import look, run, trained


def test_two_seeds_of_one_training_do_not_part():
    found = lt.compare(trained(0), trained(1))
    assert not found.part
    assert "does not part" in found.verdict
    assert set(found.compared) >= {"std", "linearity", "error signal", "update ratio", "loss", "learning rate"}
    assert found.layers == 5


def test_the_same_training_looked_at_at_other_steps_does_not_part():
    found = lt.compare(trained(0, 4), trained(0, 10))
    assert found.looks[0] != found.looks[1]
    assert not found.partings


def test_the_first_step_and_the_layer_are_named():
    found = lt.compare(run(), run(signal=lambda step: 0.3 if step >= 40 else 0.01))
    assert found.verdict == "run B parts from run A at step 40 in one: error signal 30.0 x."
    assert (found.first.step, found.first.layer) == (40, "one")


def test_one_look_that_is_off_is_no_parting():
    assert not lt.compare(run(), run(std=lambda step: 30.0 if step == 40 else 1.0)).part


def test_what_comes_first_in_a_step_is_the_cause():
    changes = {"std": lambda step: 9.0 if step >= 20 else 1.0, "signal": lambda step: 0.5 if step >= 20 else 0.01}
    found = lt.compare(run(), run(**changes))
    assert [each.measure for each in found.partings] == ["std", "error signal"]
    assert found.partings[0].layer == "one"  # before the activation that takes its output


def test_at_one_step_the_earlier_layer_is_the_cause_whatever_its_measure():
    """Dead units in front of a layer whose input no longer varies."""
    sick = [
        dataclasses.replace(
            snapshot,
            weighted=(snapshot.weighted[0], dataclasses.replace(snapshot.weighted[1], std=1e-6)),
            activations=tuple(dataclasses.replace(record, linearity=0.1) for record in snapshot.activations),
        )
        for snapshot in run()
    ]
    found = lt.compare(run(), sick)
    assert [(each.measure, each.layer) for each in found.partings] == [("linearity", "act"), ("std", "two")]


def test_the_error_signal_parts_first_nearest_to_the_loss():
    def of(signals):
        layers = [lt.WeightedRecord(name, order=i, std=1.0, error_signal=s) for i, (name, s) in enumerate(signals)]
        return [lt.Snapshot(step, weighted=tuple(layers)) for step in range(4)]

    one = of([("a", 0.1), ("b", 0.1), ("c", 0.1), ("d", 1.0)])
    other = of([("a", 9.0), ("b", 9.0), ("c", 0.1), ("d", 1.0)])
    assert lt.compare(one, other).first.layer == "b"


def test_nan_counts_at_once():
    broken = [*run(range(0, 40, 10)), look(40)]
    weighted = tuple(dataclasses.replace(record, nonfinite=True) for record in broken[-1].weighted)
    broken[-1] = dataclasses.replace(broken[-1], weighted=weighted)
    found = lt.compare(run(range(0, 50, 10)), broken)
    assert str(found.first) == "at step 40 in one: NaN or Inf"


def test_what_is_not_updated_in_one_run_alone():
    found = lt.compare(run(), run(ratio=lambda step: 0.0))
    assert str(found.first) == "at step 0 in one.weight: not updated"


def test_a_probe_without_an_optimizer_tells_nothing_of_updates():
    found = lt.compare(run(), run(ratio=lambda step: math.nan))
    assert "updated" not in found.compared
    assert not found.part


def test_the_learning_rate_stands_beside_the_layer():
    found = lt.compare(run(), run(lr=lambda step: 1.0, std=lambda step: 8.0 if step >= 30 else 1.0))
    assert found.verdict.endswith("at step 30 in one: std 8.00 x (learning rate 10.0 x from step 0 on).")


def test_layers_below_another_module_are_the_same():
    found = lt.compare(run(under=lambda step: "net."), run(under=lambda step: "model.net.", std=lambda step: 9.0))
    assert found.layers == 3
    assert found.first.layer == "one"


def test_layers_of_one_run_alone_are_named():
    more = [dataclasses.replace(s, weighted=(*s.weighted, lt.WeightedRecord("extra", order=3))) for s in run()]
    found = lt.compare(run(), more, names=("plain", "deep"))
    assert found.only == ((), ("extra",))
    assert "Only in deep: extra." in str(found)


def test_nothing_in_common_is_not_called_equal():
    apart = lt.compare(run(range(0, 30, 10)), run(range(100, 130, 10)))
    assert apart.steps is None
    assert "cannot be compared" in apart.verdict
    strangers = [lt.Snapshot(0, weighted=(lt.WeightedRecord("other", std=1.0),))]
    assert "cannot be compared" in lt.compare([look(0)], strangers).verdict


def test_the_views():
    found = lt.compare(run(), run(std=lambda step: 9.0), names=("plain", "loud"))
    head = str(found).splitlines()
    assert head[0] == "Loud parts from plain at step 0 in one: std 9.00 x."
    assert head[2].split() == ["measure", "parts", "at", "layer", "plain", "loud", "difference"]
    assert json.loads(json.dumps(found.to_dict()))["partings"][0]["layer"] == "one"
    pytest.importorskip("matplotlib")
    assert found.figure().axes
