"""The report's table."""

from lightning_tricks import surgery
from lightning_tricks.init import Entry, NoEffectWarning, Report


def test_columns_are_aligned_and_numbers_are_short():
    report = Report()
    report.change("net.layer1", "he_normal", {"fan": 1152, "std asked": 0.041666})
    report.change("", "a longer description", {"std got": 1e-7})
    lines = str(report).splitlines()
    assert lines[0] == "layer       changed               fan   std asked  std got"
    assert lines[1] == "net.layer1  he_normal             1152  0.04167"
    assert lines[2] == "(model)     a longer description                   1e-07"


def test_both_tables_or_one_line():
    report = Report()
    assert str(report) == "nothing changed, nothing left alone"
    report.leave("norm", "no rule")
    assert str(report) == "layer  left alone\nnorm   no rule"
    report.change("a", "b")
    assert str(report) == "layer  changed\na      b\n\nlayer  left alone\nnorm   no rule"
    assert report.left == [Entry("norm", "no rule")]


def test_surgery_fills_the_same_report():
    assert surgery.Report is Report
    assert surgery.NoEffectWarning is NoEffectWarning
    assert issubclass(NoEffectWarning, UserWarning)
