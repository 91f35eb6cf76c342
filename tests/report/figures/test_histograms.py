import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import lightning_tricks as lt
from lightning_tricks.report import histogram_over_time, histograms_over_time


def test_the_image_is_the_histograms_of_the_records(sigmoids):
    figure = histogram_over_time(sigmoids, "5")
    (image,) = figure.axes[0].get_images()
    shares = np.asarray(image.get_array())
    assert shares.shape == (34, 3)
    for column, snapshot in enumerate(sigmoids):
        recorded = np.array(snapshot.activation("5").centred)
        assert recorded.sum() == pytest.approx(1)
        np.testing.assert_allclose(shares[:, column], np.maximum(recorded, 1e-3))
    assert image.get_extent() == [-0.5, 2.5, -4.25, 4.25]
    assert image.origin == "lower"


def test_each_interval_is_drawn_at_its_height(sigmoids):
    """The only pattern share between 0 and 1/4 must be drawn there."""
    shares = [0.0] * 34
    shares[17] = 1.0  # (-inf, -4], then 32 of width 1/4: the 17th of those begins at 0
    record = dataclasses.replace(sigmoids[0].activations[0], centred=tuple(shares))
    (image,) = histogram_over_time([dataclasses.replace(sigmoids[0], activations=(record,))], "1").axes[0].get_images()
    low, high = image.get_extent()[2:]
    row = int(np.argmax(np.asarray(image.get_array())[:, 0]))
    edges = np.linspace(low, high, 35)
    assert (edges[row], edges[row + 1]) == (0.0, 0.25)


def test_a_collapsed_layer_with_biases_spread_over_its_units_shows_as_a_line():
    net = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 1))
    nn.init.normal_(net[0].weight, std=1e-4)
    nn.init.normal_(net[0].bias)
    with lt.probe(net) as probe:
        net(torch.randn(128, 16)).mean().backward()
    (image,) = histogram_over_time([probe.snapshot()], "1").axes[0].get_images()
    shares = np.asarray(image.get_array())[:, 0]
    assert shares[[16, 17]].sum() > 0.99  # the two intervals that meet at 0
    assert sum(np.array(probe.snapshot().activation("1").histogram) > 0.01) > 10  # as the layer has it


def test_a_history_without_centred_histograms_is_drawn_as_it_is(sigmoids):
    older = [dataclasses.replace(s, activations=tuple(dataclasses.replace(r, centred=()) for r in s.activations))
             for s in sigmoids]  # fmt: skip
    (image,) = histogram_over_time(older, "5").axes[0].get_images()
    recorded = np.array(older[0].activation("5").histogram)
    np.testing.assert_allclose(np.asarray(image.get_array())[:, 0], np.maximum(recorded, 1e-3))


def test_an_unknown_layer_is_refused_by_name(sigmoids):
    with pytest.raises(ValueError, match=r"no histogram of an activation named 'net\.7'; recorded are: 1, 3, 5"):
        histogram_over_time(sigmoids, "net.7")
    with pytest.raises(ValueError, match="recorded are: none"):
        histogram_over_time([], "1")


def test_the_grid_takes_layers_over_the_whole_depth(deep):
    titles = [axes.get_title(loc="left") for axes in histograms_over_time(deep).axes if axes.get_images()]
    assert len(titles) <= 12
    assert (titles[0], titles[-1]) == ("layer 1", "layer 199")
    named = histograms_over_time(deep, ["5", "7"])
    assert [axes.get_title(loc="left") for axes in named.axes if axes.get_images()] == ["layer 5", "layer 7"]


def test_only_a_bare_number_is_called_a_layer(sigmoids):
    record = dataclasses.replace(sigmoids[0].activations[0], name="layers.2")
    history = [dataclasses.replace(sigmoids[0], activations=(record,))]
    assert histograms_over_time(history).axes[0].get_title(loc="left") == "layers.2"
    assert histogram_over_time(history, "layers.2").get_suptitle().strip() == "Pre-activations of layers.2 in training"


def test_a_step_in_which_a_layer_did_not_run_is_a_gap(sigmoids):
    missing = dataclasses.replace(sigmoids[1], activations=sigmoids[1].activations[1:])
    (image,) = histogram_over_time([sigmoids[0], missing], "1").axes[0].get_images()
    assert np.ma.getmaskarray(image.get_array())[:, 1].all()
    assert not np.ma.getmaskarray(image.get_array())[:, 0].any()
