import dataclasses

import numpy as np

from lightning_tricks.report.figures import depth


def test_names_come_from_the_fullest_step_and_keep_what_others_saw(sigmoids):
    partly = dataclasses.replace(sigmoids[0], activations=sigmoids[0].activations[:2])
    odd = dataclasses.replace(sigmoids[1], activations=(dataclasses.replace(sigmoids[1].activations[0], name="extra"),))
    assert depth.names([partly, sigmoids[1], odd], depth.trunk) == ["1", "3", "5", "7", "9", "11", "12", "extra"]
    assert depth.names([], depth.trunk) == []


def test_a_layer_that_did_not_run_is_nan(sigmoids):
    partly = dataclasses.replace(sigmoids[0], activations=sigmoids[0].activations[:2])
    values = depth.measure(partly, depth.trunk, ["1", "5", "12"], "std")
    np.testing.assert_array_equal(np.isnan(values), [False, True, False])


def test_infinity_has_no_height(sigmoids):
    loud = dataclasses.replace(sigmoids[0], activations=(dataclasses.replace(sigmoids[0].activations[0], std=np.inf),))
    assert np.isnan(depth.measure(loud, depth.trunk, ["1"], "std")).all()


def test_a_model_without_activations_is_shown_by_its_weights(linear):
    assert depth.names(linear, depth.trunk) == ["0"]


def test_steps_are_spread_over_the_run(sigmoids):
    history = [dataclasses.replace(sigmoids[0], step=i) for i in range(101)]
    assert [s.step for s in depth.spread_out(history, 5)] == [0, 25, 50, 75, 100]
    assert depth.spread_out(history[:3], 5) == history[:3]


def test_the_line_is_the_least_squares_line():
    rng = np.random.default_rng(0)
    values = 10.0 ** (-0.3 * np.arange(50) + rng.normal(size=50))
    values[[3, 7]] = np.nan, 0.0
    known = np.isfinite(values) & (values > 0)
    design = np.stack([np.ones(50), np.arange(50)], axis=1)[known]
    start, slope = np.linalg.lstsq(design, np.log10(values[known]), rcond=None)[0]
    fit = depth.Slope.of(values)
    np.testing.assert_allclose([fit.start, fit.per_layer], [start, slope])
    assert depth.Slope.of(np.array([np.nan, 1.0])) is None
