"""Which snapshots of a long training are kept, and whole."""

import math

import lightning_tricks as lt
from lightning_tricks.probes import ValidationRecord
from lightning_tricks.watch.selection import (
    MOST,
    START,
    WINDOW,
    append,
    is_probed,
    no_layer_matches,
    set_validation_data,
    set_validation_loss,
)
from tests.callbacks.trainings import Classifier, batches, fit


def steps(snapshots):
    return [snapshot.step for snapshot in snapshots]


def snapshots(count):
    return [lt.Snapshot(step) for step in range(count)]


def test_thinning_keeps_the_first_and_the_latest():
    kept = []
    for snapshot in snapshots(3000):
        append(kept, snapshot)
        assert len(kept) <= MOST
        assert kept[-1] is snapshot
        assert steps(kept[:START]) == list(range(min(snapshot.step + 1, START)))
    assert steps(kept) == sorted(set(steps(kept)))
    assert steps(kept[-WINDOW:]) == list(range(3000 - WINDOW, 3000))
    gaps = [after - before for before, after in zip(steps(kept), steps(kept)[1:], strict=False)]
    assert max(gaps) <= 2 * 3000 / MOST  # evenly, not the old ones more and more thinly


def test_only_the_latest_keep_their_sums():
    monitor = lt.ActivationMonitor(every_n_steps=1)
    fit(Classifier(), [monitor], batches(9))
    with_sums = [snapshot.step for snapshot in monitor.history if snapshot.activations[0].sums is not None]
    assert with_sums == list(range(9 - WINDOW, 9))


def test_a_training_taken_up_earlier_overwrites_what_came_after():
    kept = snapshots(10)
    append(kept, lt.Snapshot(4, loss=0.5))
    assert steps(kept) == [0, 1, 2, 3, 4]
    assert kept[-1].loss == 0.5


def test_a_validation_loss_is_taken_over_by_those_that_follow():
    kept = snapshots(2)
    set_validation_loss(kept, 0.25)
    append(kept, lt.Snapshot(2))
    append(kept, lt.Snapshot(3, validation_loss=0.5))
    assert math.isnan(kept[0].validation_loss)
    assert [snapshot.validation_loss for snapshot in kept[1:]] == [0.25, 0.25, 0.5]
    set_validation_loss([], 1.0)


def test_every_step_is_probed_with_a_cadence_of_one():
    assert all(is_probed(step, 1) for step in range(20))


def test_layers_by_globs():
    monitor = lt.ActivationMonitor(every_n_steps=1)
    fit(Classifier(), [monitor], batches(1))
    whole = monitor.history[0]
    assert whole.matching(["net.1", "*"]) is whole
    assert {record.name for record in whole.matching(["net.[34]"]).activations} == {"net.4"}
    assert {record.name for record in whole.matching(["net.[34]", "net.5"]).weighted} == {"net.3", "net.5"}
    assert no_layer_matches(whole, "x").endswith("layers='x'; those with parameters are net.0, net.3, net.5")


def test_the_validation_data_outlive_their_snapshot():
    kept, record = [], ValidationRecord("net.0")
    for step in range(3000):
        append(kept, lt.Snapshot(step))
        if step in (12, 100):  # of a second one, as of a training that is taken up again, nothing is kept
            set_validation_data(kept, record if step == 12 else ValidationRecord("other"))
    assert [s.validation for s in kept if s.validation is not None] == [record]
