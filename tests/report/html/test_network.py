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
    assert strip.index("dead units at layer 1") < strip.index("vanishing gradient at layer 0")


def test_what_is_worse_stands_before_a_cause(rectifiers):
    follows = Finding("vanishing_gradient", "0", "critical", 0)
    found = Diagnosis([Finding("dead_units", "1", "info", 0, consequences=(follows,))], rectifiers)
    strip = network.section(found, grid_of(rectifiers))[-1]
    assert strip.index("vanishing gradient at layer 0") < strip.index("dead units at layer 1")


def test_a_box_says_how_many_findings_it_does_not_show(rectifiers):
    """Four at layers 0 and 1, which are in one box: three are shown, and where the fourth is."""
    many = [Finding(name, str(k % 2), "warning", 0) for k, name in enumerate(["dead_units", "saturation", "linearity"])]
    last = Finding("bias_shift", "0", "info", 0)
    strip = network.section(Diagnosis([*many, last], rectifiers), grid_of(rectifiers))[1]
    assert strip.count("#finding-") == 3
    assert "and 1 more, in finding 4" in strip
    assert "more" not in network.section(Diagnosis(many, rectifiers), grid_of(rectifiers))[1]


def test_what_is_in_no_box_stands_below_them(rectifiers):
    """A finding of the whole model, and one at a module that did not run."""
    whole, unused = Finding("overfitting", None, "warning", 0), Finding("disconnected_parameters", "9", "critical", 0)
    shown = network.section(Diagnosis([whole, unused], rectifiers), grid_of(rectifiers))
    assert "finding-" not in shown[1]
    below = "".join(shown[2:])
    assert below.index("disconnected parameters at layer 9") < below.index("overfitting in the whole model")
    assert "In none of the boxes" in below
    assert len(network.section(Diagnosis([], rectifiers), grid_of(rectifiers))) == 2
