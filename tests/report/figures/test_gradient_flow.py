import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from lightning_tricks.diagnosis.history.error_signal import ErrorSignalByLayer
from lightning_tricks.diagnosis.rules import exploding_gradient, vanishing_gradient
from lightning_tricks.report import gradient_flow
from lightning_tricks.report.figures.gradient_flow import no_finding
from tests.report.conftest import train


def test_the_lines_are_the_numbers_of_the_records(sigmoids, curve):
    above, below = gradient_flow(sigmoids).axes
    for snapshot in sigmoids:
        norms = np.array([record.error_signal * record.elements**0.5 for record in snapshot.weighted])
        assert all(record.elements == 32 * record.units for record in snapshot.weighted)
        np.testing.assert_allclose(curve(above, f"step {snapshot.step}"), norms / norms[-1])
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
    assert labels == ["step 0: +2.00", "fitted at step 0", "9 in 10 healthy", "a finding begins"]
    np.testing.assert_allclose(curve(above, "fitted"), [100.0**-6, 1.0])


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


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        return self.head(x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(torch.relu(self.attention(x[:, None], x[:, None], x[:, None])[0][:, 0]))


@pytest.mark.parametrize("network", [Residual, Attention])
def test_a_line_is_fitted_to_plain_stacks_only(network):
    """Over the branches of a block, or over q, k and v, a slope by the order of execution means nothing."""
    history = train(network())
    axes = gradient_flow(history).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "step 0",
        "step 1",
        "step 2",
        "9 in 10 healthy",
        "a finding begins",
    ]
    assert {line.get_linestyle() for line in axes.get_lines()} == {"None", ":"}  # points, and where a finding begins


@pytest.mark.parametrize("kind", [vanishing_gradient, exploding_gradient])
def test_the_band_ends_where_the_rules_begin(kind):
    low, high = no_finding(5)
    assert (low[0], high[0]) == (vanishing_gradient.LIMITS.vanished, exploding_gradient.LIMITS.exploded)
    deep = no_finding(101)[kind is exploding_gradient][0]
    assert abs(np.log10(deep)) / 100 == pytest.approx(kind.LIMITS.steep)


def test_of_one_layer_no_band_is_told(linear):
    """It has no way back on which healthy networks could be compared with it."""
    figure = gradient_flow(linear)
    texts = " ".join(text.get_text() for text in (*figure.texts, *figure.axes[0].get_legend().get_texts()))
    assert "healthy" not in texts
    assert "a finding begins" not in texts
