"""What a notebook shows is what print shows, with nothing in it taken for HTML."""

from __future__ import annotations

import html
import re

import torch
from torch import nn

import lightning_tricks as lt
from lightning_tricks.diagnosis import Finding
from lightning_tricks.report.table import text


def plain(shown):
    return html.unescape(re.sub(r"<[^>]+>", "", shown))


def test_a_diagnosis_is_its_table_in_colour():
    finding = Finding("dead_units", "<script>", "critical", 3, {"dead units": "5 of 8"}, "a < b & c")
    diagnosis = lt.Diagnosis([finding], [lt.Snapshot(3)])
    shown = diagnosis._repr_html_()
    assert plain(shown) == text(diagnosis, 100)
    assert "<script>" not in shown
    assert shown.count("<span") == shown.count("</span>") > 0


def test_records_are_shown_as_they_print():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    report = lt.surgery.Report()
    lt.init.initialize(net, report=report)
    run = [lt.Snapshot(0, weighted=(lt.WeightedRecord("0", std=1.0),))]
    shown = [lt.init.predict(net), report, lt.Treatment(), lt.compare(run, run), lt.summary(net, torch.randn(8, 4))]
    for record in shown:
        assert plain(record._repr_html_()) == str(record)


def test_a_snapshot_shows_its_layers():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with lt.probe(net) as probe:
        net(torch.randn(8, 4)).sum().backward()
    shown = plain(probe.snapshot()._repr_html_())
    assert shown.startswith("Snapshot(step=0")
    assert "linear, relu" in shown
    assert plain(lt.Snapshot(5)._repr_html_()).startswith("Snapshot(step=5")
