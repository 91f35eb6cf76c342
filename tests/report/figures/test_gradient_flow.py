import dataclasses

import numpy as np

from lightning_tricks.diagnosis.history.error_signal import ErrorSignalByLayer
from lightning_tricks.report import gradient_flow


def test_the_lines_are_the_numbers_of_the_records(sigmoids, curve):
    above, below = gradient_flow(sigmoids).axes
    for snapshot in sigmoids:
        norms = [record.error_signal * record.elements**0.5 for record in snapshot.weighted]
        assert all(record.elements == 32 * record.units for record in snapshot.weighted)
        np.testing.assert_allclose(curve(above, f"step {snapshot.step}"), norms)
        gradients = [next(p.gradient for p in snapshot.parameters if p.name == r.weight) for r in snapshot.weighted]
        np.testing.assert_array_equal(curve(below, f"step {snapshot.step}"), gradients)


def test_the_slope_is_that_of_the_line(sigmoids, curve):
    """A ladder that loses a factor of 100 per layer."""
    exact = dataclasses.replace(
        sigmoids[0],
        weighted=tuple(
            dataclasses.replace(r, error_signal=100.0 ** (k - 9), elements=4)
            for k, r in enumerate(sigmoids[0].weighted)
        ),
    )
    above, _ = gradient_flow([exact]).axes
    labels = [text.get_text() for text in above.get_legend().get_texts()]
    assert labels == ["step 0: +2.00", "fitted at step 0"]
    np.testing.assert_allclose(curve(above, "fitted"), [2 * 100.0**-9, 2 * 100.0**-3])


def test_it_agrees_with_the_rule(sigmoids):
    signal = ErrorSignalByLayer.of(sigmoids[-1])
    labels = [text.get_text() for text in gradient_flow(sigmoids).axes[0].get_legend().get_texts()]
    assert f"step 2: {signal.slope:+.2f}" in labels


def test_many_steps_are_thinned(rectifiers):
    history = [dataclasses.replace(rectifiers[i % 5], step=i) for i in range(200)]
    labels = [text.get_text() for text in gradient_flow(history).axes[0].get_legend().get_texts()]
    steps = [int(label.split()[1].rstrip(":")) for label in labels if label.startswith("step")]
    assert steps == [0, 50, 100, 149, 199]


def test_a_signal_of_zero_is_marked_and_left_out(sigmoids, curve):
    silent = dataclasses.replace(
        sigmoids[0],
        weighted=(dataclasses.replace(sigmoids[0].weighted[0], error_signal=0.0), *sigmoids[0].weighted[1:]),
    )
    above, _ = gradient_flow([silent]).axes
    assert np.isnan(curve(above, "step 0")[0])
    assert "exactly 0 at step 0" in [text.get_text() for text in above.get_legend().get_texts()]


def test_without_a_backward_pass_it_says_so(sigmoids):
    forward_only = dataclasses.replace(
        sigmoids[0],
        weighted=tuple(dataclasses.replace(r, error_signal=float("nan")) for r in sigmoids[0].weighted),
        parameters=(),
    )
    for axes in gradient_flow([forward_only]).axes:
        assert [text.get_text() for text in axes.texts] == ["not measured"]
