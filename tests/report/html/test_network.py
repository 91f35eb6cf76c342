"""The strip of the layers: which finding stands at a layer that several name."""

from lightning_tricks.diagnosis import Finding
from lightning_tricks.report import Diagnosis
from lightning_tricks.report.html import network
from lightning_tricks.report.html.grid import grid_of


def test_a_cause_stands_before_what_follows_from_it(rectifiers):
    """Both critical, and both in the row of layers 0 and 1: the dead units are what to begin with."""
    follows = Finding("vanishing_gradient", "0", "critical", 0)
    found = Diagnosis([Finding("dead_units", "1", "critical", 0, consequences=(follows,))], rectifiers)
    strip = network.section(found, grid_of(rectifiers))[-1]
    assert "dead units at layer 1" in strip
    assert "vanishing" not in strip


def test_what_is_worse_stands_before_a_cause(rectifiers):
    follows = Finding("vanishing_gradient", "0", "critical", 0)
    found = Diagnosis([Finding("dead_units", "1", "info", 0, consequences=(follows,))], rectifiers)
    assert "vanishing gradient at layer 0" in network.section(found, grid_of(rectifiers))[-1]
