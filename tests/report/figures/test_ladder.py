import dataclasses

import numpy as np

from lightning_tricks.report import ladder


def test_the_lines_are_the_numbers_of_the_records(sigmoids, curve):
    above, below = ladder(sigmoids).axes
    for snapshot in (sigmoids[0], sigmoids[-1]):
        records = [*snapshot.activations, snapshot.weighted[-1]]  # the output has no activation of its own
        mean, std = (np.array([getattr(record, name) for record in records]) for name in ("mean", "std"))
        np.testing.assert_array_equal(curve(above, f"step {snapshot.step}"), mean)
        np.testing.assert_array_equal(curve(below, f"step {snapshot.step}"), std)
    band = above.collections[0].get_paths()[0].vertices  # the band of the first step
    first = sigmoids[0].activations[0]
    heights = band[band[:, 0] == 0, 1]
    np.testing.assert_allclose([heights.min(), heights.max()], [first.mean - first.std, first.mean + first.std])
    assert [text.get_text() for text in below.get_xticklabels()] == ["1", "3", "5", "7", "9", "11", "12"]


def test_one_step_is_drawn_once(sigmoids):
    above, _ = ladder(sigmoids[:1]).axes
    assert [text.get_text() for text in above.get_legend().get_texts()] == ["step 0"]


def test_gates_stand_aside(sigmoids, curve):
    gated = dataclasses.replace(
        sigmoids[0], activations=tuple(dataclasses.replace(r, gate=r.name == "5") for r in sigmoids[0].activations)
    )
    names = [text.get_text() for text in ladder([gated]).axes[1].get_xticklabels()]
    assert names == ["1", "3", "7", "9", "11", "12"]


def test_a_huge_mean_does_not_flatten_the_rest(sigmoids):
    loud = dataclasses.replace(
        sigmoids[0],
        activations=(dataclasses.replace(sigmoids[0].activations[0], mean=1e9), *sigmoids[0].activations[1:]),
    )
    assert ladder([loud]).axes[0].get_yscale() == "symlog"
    assert ladder(sigmoids).axes[0].get_yscale() == "linear"


def test_layers_with_nan_are_marked(spoilt):
    labels = [text.get_text() for text in ladder(spoilt).axes[0].get_legend().get_texts()]
    assert labels == ["step 0", "step 2", "NaN or Inf at step 2"]


def test_a_long_model_has_room_for_its_names(deep):
    below = ladder(deep).axes[1]
    assert len(below.get_lines()[0].get_ydata()) == 101
    ticks = [text.get_text() for text in below.get_xticklabels()]
    assert len(ticks) <= 26
    assert (ticks[0], ticks[-1]) == ("1", "200")


def test_of_one_layer_the_spread_is_drawn_too(linear):
    above, _ = ladder(linear).axes
    (first, *_) = above.containers
    heights = first.lines[2][0].get_segments()[0][:, 1]
    record = linear[0].weighted[0]
    np.testing.assert_allclose(heights, [record.mean - record.std, record.mean + record.std])
