import numpy as np
import pytest
from torch import nn

from lightning_tricks.report import gradient_flow
from lightning_tricks.report.figures.gradient_flow import no_finding
from lightning_tricks.report.figures.healthy import NAMES, QUANTILES, band, kind_of
from tests.benchmarks.healthy_signals import quantile, table
from tests.report.conftest import mlp, train
from tests.report.figures.test_gradient_flow import Attention, Residual


class Unrolled(nn.Module):
    """Its one layer sees each part of the input, and what it made of the one before."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.Linear(4, 2), nn.Linear(2, 4)

    def forward(self, x):
        state = x[:, :2]
        for part in x[:, 2:].split(2, dim=1):
            state = self.cell(nn.functional.pad(part, (0, 2))).tanh() + state
        return self.head(state)


@pytest.mark.parametrize(
    ("network", "kind"),
    [(mlp(3, nn.ReLU), "plain"), (Residual(), "other"), (Attention(), "other"), (Unrolled(), "repeated")],
)
def test_the_kind_is_told_by_what_was_seen(network, kind):
    (snapshot,) = train(network, steps=(0,))
    assert kind_of(snapshot) == kind
    assert NAMES[kind] in " ".join(" ".join(t.get_text() for t in gradient_flow([snapshot]).texts).split())


@pytest.mark.parametrize("kind", QUANTILES)
def test_a_band_never_narrows_and_ends_where_none_was_measured(kind):
    furthest = QUANTILES[kind][-1][0]
    low, high = band(kind, furthest + 3)
    assert np.isnan([*low[:2], *high[:2]]).all()
    assert (low[-1], high[-1]) == (1.0, 1.0)
    assert (np.diff(low[2:]) >= 0).all()
    assert (np.diff(high[2:]) <= 0).all()
    assert [QUANTILES[kind][-1][1:]] == [(pytest.approx(np.log10(low[2])), pytest.approx(np.log10(high[2])))]


def test_healthy_networks_are_far_from_a_finding_in_a_plain_stack():
    low, high = band("plain", 13)
    least, most = no_finding(13)
    assert (least < low).all()
    assert (high < most).all()


def test_the_picture_shows_the_band_of_its_kind(rectifiers, curve):
    axes = gradient_flow(rectifiers).axes[0]
    (shade,) = axes.collections
    low, high = band("plain", len(rectifiers[0].weighted))
    heights = shade.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (pytest.approx(low[0]), pytest.approx(high[0]))
    np.testing.assert_array_equal(curve(axes, "a finding begins"), no_finding(len(low))[0])


def test_quantiles_weigh_every_run_alike():
    """One run with many looks does not outvote the others, and a band never narrows."""
    assert quantile([(0.0, 1.0), *[(5.0, 0.1)] * 10, (9.0, 1.0)], 0.5) == 5.0
    runs = [(float(v), 1.0) for v in np.linspace(-1, 1, 201)]
    rows = table({1: runs, 2: [(v / 2, w) for v, w in runs], 3: runs[:5]})
    assert rows == [(1, -0.9, 0.9), (2, -0.9, 0.9)]
