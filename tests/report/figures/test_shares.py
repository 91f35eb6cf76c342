import numpy as np
import pytest
from torch import nn

from lightning_tricks.report import dead_and_linear
from tests.report.conftest import mlp, train


def images(figure):
    return {
        axes.get_title(loc="left").split("\n")[0]: axes.get_images()[0].get_array()
        for axes in figure.axes
        if axes.get_images()
    }


def test_the_images_are_the_shares_of_the_records(rectifiers):
    drawn = images(dead_and_linear(rectifiers))
    assert list(drawn) == ["dead units", "linear units"]  # flat on one side is how a rectifier works
    for title, measure in (("dead units", "dead_share"), ("linear units", "linear_share")):
        expected = np.array([[getattr(s.activations[i], measure) for s in rectifiers] for i in range(3)])
        np.testing.assert_array_equal(np.ma.filled(drawn[title], np.nan), expected)


def test_units_without_a_hard_zero_are_dead_where_they_are_constant(sigmoids):
    drawn = images(dead_and_linear(sigmoids))
    assert list(drawn) == ["dead units", "linear units", "saturation"]
    assert not np.any(drawn["dead units"])
    expected = np.array([[s.activations[i].saturation for s in sigmoids] for i in range(6)])
    np.testing.assert_array_equal(np.ma.filled(drawn["saturation"], np.nan), expected)


def test_the_first_layer_is_on_top(deep):
    axes = dead_and_linear(deep).axes[0]
    assert axes.get_images()[0].get_array().shape == (100, 2)
    assert axes.get_images()[0].origin == "upper"
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert (names[0], names[-1]) == ("1", "199")
    assert len(names) <= 26


def test_without_activations_it_says_so(linear):
    figure = dead_and_linear(linear)
    assert [text.get_text() for text in figure.texts] == ["No activation was looked at yet."]


def test_healthy_linear_units_are_not_called_idle(sigmoids):
    figure = dead_and_linear(sigmoids)
    assert figure.get_suptitle().strip() == "Dead, linear and saturated units"
    assert any("Linear units are normal up to a point" in text.get_text() for text in figure.texts)
    assert "share (grey: does not apply)" in [axes.get_ylabel() for axes in figure.axes]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid])
def test_the_sickest_layers_have_the_fullest_colour(activation):
    """A layer whose units give the same for every pattern has no measurable linearity; it was grey."""
    network = mlp(3, activation)
    nn.init.zeros_(network[2].weight)
    nn.init.constant_(network[2].bias, -10.0)
    drawn = images(dead_and_linear(train(network, steps=(0,))))
    for title in ("dead units", "linear units"):
        assert drawn[title][1].tolist() == [1.0]
    assert drawn["dead units"][0].tolist() == [0.0]


def test_nan_is_black_and_not_grey(spoilt):
    figure = dead_and_linear(spoilt)
    assert np.all(images(figure)["linear units"][:, 1] > 1)
    assert "share (grey: does not apply; black: NaN or Inf)" in [axes.get_ylabel() for axes in figure.axes]
