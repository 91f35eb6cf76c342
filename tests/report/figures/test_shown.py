"""A figure shows itself in a notebook, without a magic, and in a window elsewhere."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("matplotlib")

import matplotlib
import matplotlib.pyplot as plt

import lightning_tricks as lt

RUN = [lt.Snapshot(0, weighted=(lt.WeightedRecord("0", std=1.0, error_signal=0.1, elements=4),))]


def test_a_notebook_gets_a_picture():
    assert lt.report.ladder(RUN)._repr_png_().startswith(b"\x89PNG")
    assert not plt.get_fignums()


def test_elsewhere_it_is_handed_to_a_window(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setattr(plt, "show", lambda: None)
    before = matplotlib.get_backend()
    matplotlib.use("agg")
    try:
        figure = lt.report.ladder(RUN)
        figure.show()
        assert plt.gcf() is not None
        assert plt.figure(plt.get_fignums()[0]).canvas.manager.canvas is figure.canvas
    finally:
        plt.close("all")
        matplotlib.use(before)
