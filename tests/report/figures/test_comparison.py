import io

import numpy as np
import pytest

from lightning_tricks.report import comparison


def test_left_the_first_right_the_second_network(sigmoids, rectifiers, curve):
    figure = comparison(sigmoids, rectifiers, [0.1, 0.2], [0.5, 0.9, 0.95], names=("old", "new"), chance=0.25)
    (before, spread_before, after, spread_after, accuracy) = figure.axes
    assert [axes.get_title(loc="left") for axes in (before, after)] == ["old", "new"]
    for history, signals, spreads in ((sigmoids, before, spread_before), (rectifiers, after, spread_after)):
        last = history[-1]
        norms = np.array([record.error_signal * record.elements**0.5 for record in last.weighted])
        np.testing.assert_allclose(curve(signals, f"step {last.step}"), norms / norms[-1])
        stds = [record.std for record in (*last.activations, last.weighted[-1])]
        np.testing.assert_array_equal(curve(spreads, f"step {last.step}"), stds)
    assert before.get_ylim() == after.get_ylim()
    assert spread_before.get_ylim() == spread_after.get_ylim()
    np.testing.assert_array_equal(curve(accuracy, "old\n20.0% after epoch 2"), [0.1, 0.2])
    np.testing.assert_array_equal(curve(accuracy, "new\n95.0% after epoch 3"), [0.5, 0.9, 0.95])
    np.testing.assert_array_equal(curve(accuracy, "a guess: 25%"), [0.25, 0.25])


def test_without_accuracies_there_is_no_panel_for_them(sigmoids, rectifiers):
    assert len(comparison(sigmoids, rectifiers).axes) == 4


@pytest.mark.parametrize("accuracies", [([], [0.5]), ([float("nan")], [0.2, float("nan")])])
def test_gaps_are_drawn_as_gaps(accuracies, spoilt, linear):
    for before, after in ((spoilt, linear), ([], spoilt), ([], [])):
        comparison(before, after, *accuracies).savefig(io.BytesIO(), dpi=30)


def test_nobody_is_called_sick_unless_told(sigmoids, rectifiers):
    figure = comparison(sigmoids, rectifiers)
    told = " ".join([figure.get_suptitle(), *(axes.get_title(loc="left") for axes in figure.axes)])
    assert "first" in told
    assert not {"sick", "cured"} & set(told.lower().replace(",", "").split())
